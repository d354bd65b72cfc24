"""The audit of a dataset: what is wrong with its files, what is in it twice, and whether a split leaks.

Evidence is worthless, and the audit fails, where a file cannot be read, a mask is missing, empty or of
another size, one scene is in two classes, or a split has one group or one scene on two sides. All else is
shown.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tumorseg_runtime.core.progress import Tell, silent
from tumorseg_train.data.checks import (
    EMPTY,
    INVERTED,
    MISMATCHED,
    UNREADABLE,
    Facts,
    Problem,
    at_the_border,
    examine,
)
from tumorseg_train.data.datasets import Sample, find_samples
from tumorseg_train.data.grouping import Group, group_samples, near_duplicates
from tumorseg_train.data.phantoms import NOTE
from tumorseg_train.data.split import Manifest
from tumorseg_train.layouts.declaration import Declaration
from tumorseg_train.layouts.known import unread_folders
from tumorseg_train.layouts.volumes import content_hash

FATAL = (UNREADABLE, MISMATCHED, EMPTY, INVERTED)


@dataclasses.dataclass(frozen=True)
class DuplicatePair:
    """Two images that look alike. similarity: 1 for equal bytes. parts: of the split, empty without one."""

    first: str
    second: str
    similarity: float
    same_bytes: bool
    classes: tuple[str, str]
    parts: tuple[str, str] = ("", "")

    @property
    def conflicting(self) -> bool:
        """Whether the two are in different classes, so that one of them is wrong."""
        return self.classes[0] != self.classes[1]

    @property
    def across(self) -> bool:
        """Whether the two are in different parts of the split."""
        return "" not in self.parts and self.parts[0] != self.parts[1]


@dataclasses.dataclass(frozen=True)
class Leak:
    """A group of which images are in several parts. images: path -> part."""

    group: Group
    images: dict[str, str]


@dataclasses.dataclass(frozen=True)
class SplitCheck:
    """A split held against the data. missing: listed, but not found or sound. unlisted: found, not listed.
    changed: with another hash. leaks: by the groups of the data and by those that the manifest names.
    """

    file: str
    method: str
    missing: tuple[str, ...]
    unlisted: tuple[str, ...]
    changed: tuple[str, ...]
    leaks: tuple[Leak, ...]


@dataclasses.dataclass(frozen=True)
class Audit:
    """What was found under `root`. facts: of the sound samples, by image. pairs: by falling similarity."""

    root: Path
    samples: tuple[Sample, ...]
    facts: Mapping[str, Facts]
    problems: tuple[Problem, ...]
    pairs: tuple[DuplicatePair, ...]
    unread_folders: tuple[str, ...]
    split: SplitCheck | None

    @property
    def phantoms(self) -> bool:
        """Whether the images are drawn; then they are not compared, except for equal bytes."""
        return (self.root / NOTE).is_file()

    def clusters(self) -> list[tuple[str, ...]]:
        """Images that look alike, directly or through others: the largest clusters first."""
        cluster: dict[str, list[str]] = {}
        for pair in self.pairs:
            one, other = (cluster.setdefault(image, [image]) for image in (pair.first, pair.second))
            if one is not other:
                one += other
                cluster |= dict.fromkeys(other, one)
        found = {tuple(sorted(images)) for images in cluster.values()}
        return sorted(found, key=lambda images: (-len(images), images))

    def coloured(self) -> list[str]:
        """Images with colour where most are gray."""
        images = [image for image, facts in self.facts.items() if facts.coloured]
        return images if 2 * len(images) <= len(self.facts) else []

    def at_the_border(self) -> list[str]:
        """Images whose masks fill half of the border and more, as is declared of them."""
        return at_the_border(dict(self.facts))

    def several_masks(self) -> list[Sample]:
        """Samples of which several masks are OR-ed."""
        return [sample for sample in self.samples if len(sample.masks) > 1]

    def without_tumour(self) -> Counter[tuple[str, str]]:
        """Sound images without a tumour, by organ and class."""
        return Counter(
            (sample.organ, sample.label)
            for sample in self.samples
            if sample.image in self.facts and not self.facts[sample.image].tumour_px
        )

    def sizes(self) -> dict[str, Counter[tuple[int, int]]]:
        """Images of each (height, width), by organ."""
        sizes: dict[str, Counter[tuple[int, int]]] = {}
        for sample in self.samples:
            if sample.image in self.facts:
                facts = self.facts[sample.image]
                sizes.setdefault(sample.organ, Counter())[facts.height, facts.width] += 1
        return sizes

    def areas(self) -> dict[tuple[str, str], list[float]]:
        """Share of the image that the tumour covers, of images with one: ascending, by organ and class."""
        areas: dict[tuple[str, str], list[float]] = {}
        for sample in self.samples:
            facts = self.facts.get(sample.image)
            if facts and facts.tumour_px:
                share = facts.tumour_px / (facts.height * facts.width)
                areas.setdefault((sample.organ, sample.label), []).append(share)
        return {key: sorted(values) for key, values in sorted(areas.items())}

    def worthless(self) -> list[str]:
        """Why evidence from this data, or this split, is worth nothing: a line each; none if all is well."""
        kinds = Counter(problem.kind for problem in self.problems)
        lines = [f"{kinds[kind]} problem(s): {kind}" for kind in FATAL if kinds[kind]]
        conflicts = [pair for pair in self.pairs if pair.conflicting]
        if conflicts:
            lines.append(f"{len(conflicts)} pair(s) show one scene in two classes: take out what is wrong")
        if self.split:
            if self.split.leaks:
                kinds = Counter(leak.group.kind for leak in self.split.leaks)
                named = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
                lines.append(
                    f"{len(self.split.leaks)} group(s) across the parts of {self.split.file} ({named}): "
                    "split again with `tumorseg data prepare`"
                )
            stale = len(self.split.missing) + len(self.split.changed)
            if stale:
                lines.append(f"{stale} file(s) of {self.split.file} are missing, changed or not sound here")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON holds it."""
        return {
            "root": str(self.root),
            "worthless": self.worthless(),
            "images": len(self.samples),
            "sound_images": len(self.facts),
            "phantoms": self.phantoms,
            "problems": [problem.to_dict() for problem in self.problems],
            "class_conflicts": [dataclasses.asdict(pair) for pair in self.pairs if pair.conflicting],
            "copies": [[pair.first, pair.second] for pair in self.pairs if pair.same_bytes],
            "near_duplicates": [dataclasses.asdict(pair) for pair in self.pairs],
            "clusters": [list(images) for images in self.clusters()],
            "coloured_among_gray": self.coloured(),
            "masks_at_the_border": self.at_the_border(),
            "several_masks": {sample.image: list(sample.masks) for sample in self.several_masks()},
            "without_tumour": [
                {"organ": organ, "class": label, "images": count}
                for (organ, label), count in sorted(self.without_tumour().items())
            ],
            "sizes": [
                {"organ": organ, "height": height, "width": width, "images": count}
                for organ, sizes in sorted(self.sizes().items())
                for (height, width), count in sizes.most_common()
            ],
            "lesion_share_of_image": [
                {"organ": organ, "class": label, "images": len(values), **quantiles(values)}
                for (organ, label), values in self.areas().items()
            ],
            "unread_folders": list(self.unread_folders),
            "split": dataclasses.asdict(self.split) if self.split else None,
        }


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Least, quartiles and greatest of some values."""
    names = ("min", "q1", "median", "q3", "max")
    found = np.quantile(values, (0, 0.25, 0.5, 0.75, 1))
    return {name: round(float(value), 6) for name, value in zip(names, found, strict=True)}


def audit_data(
    root: Path, split: Path | None = None, declared: tuple[Declaration, ...] = (), tell: Tell = silent
) -> Audit:
    """Read every file under `root`, compare all images, and hold a split against them. tell: the share that
    is read.

    Raises InputError where there is no known layout, BundleError where `split` is no split.
    """
    manifest = Manifest.read(split, root) if split else None
    samples = find_samples(root, declared)
    facts, problems = examine(root, samples, declared, tell)
    sound = [sample for sample in samples if sample.image in facts]
    hashes = {name: content_hash(root / name) for sample in sound for name in (sample.image, *sample.masks)}
    drawn = (root / NOTE).is_file()
    parts = {item.image: item.part for item in manifest.items} if manifest else {}
    labels = {sample.image: sample.label for sample in sound}
    pairs = []
    for one, other, value in near_duplicates(sound, facts, hashes, drawn=drawn):
        first, second = sorted((one, other))
        classes = labels[first], labels[second]
        sides = parts.get(first, ""), parts.get(second, "")
        same = hashes[one] == hashes[other]
        pairs.append(DuplicatePair(first, second, round(value, 4), same, classes, sides))
    pairs.sort(key=lambda pair: (-pair.similarity, pair.first, pair.second))
    check = None
    if manifest:
        check = check_split(str(split), manifest, group_samples(sound, facts, hashes, drawn=drawn), hashes)
    return Audit(
        root,
        tuple(samples),
        facts,
        tuple(problems),
        tuple(pairs),
        tuple(unread_folders(root, declared)),
        check,
    )


def check_split(
    file: str, manifest: Manifest, groups: Mapping[str, Group], hashes: Mapping[str, str]
) -> SplitCheck:
    """Hold a split against the sound images' groups and hashes, both by path."""
    parts = {item.image: item.part for item in manifest.items}
    changed = [
        name
        for item in manifest.items
        for name, digest in item.files.items()
        if item.image in groups and hashes.get(name) != digest
    ]
    members: dict[Group, dict[str, str]] = {}
    for image, group in groups.items():
        if image in parts:
            members.setdefault(group, {})[image] = parts[image]
    for item in manifest.items:
        if item.group:
            members.setdefault(Group(item.group, item.group_kind), {})[item.image] = item.part
    leaks = [Leak(group, images) for group, images in members.items() if len(set(images.values())) > 1]
    return SplitCheck(
        file=file,
        method=manifest.method,
        missing=tuple(image for image in parts if image not in groups),
        unlisted=tuple(image for image in groups if image not in parts),
        changed=tuple(changed),
        leaks=tuple(leaks),
    )
