"""The split: which image is for training, validation or test, written down once with every file's hash.

Groups (`tumorseg_train.data.grouping`: patients, blocks of slices, near-duplicates) stay whole. Parts have
the same share of each organ, class and lesion size, as far as the groups let them
(`tumorseg_train.data.stratify`). The draw follows from the seed and the content of the images: names,
folders and the file system's order play no part, except that a brain slice's number tells its neighbours.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from tumorseg_runtime.core.errors import BundleError, InputError
from tumorseg_runtime.core.files import write_text
from tumorseg_runtime.core.progress import Tell, silent
from tumorseg_runtime.core.records import Count, Fields, Format, InnerPath, Sha256, to_json
from tumorseg_train.data.checks import Facts, examine, in_few_lines
from tumorseg_train.data.datasets import Sample, find_samples
from tumorseg_train.data.grouping import Group, group_samples
from tumorseg_train.data.phantoms import NOTE
from tumorseg_train.data.stratify import Member, stratify
from tumorseg_train.layouts.declaration import Declaration
from tumorseg_train.layouts.masks import MaskRule
from tumorseg_train.layouts.volumes import content_hash

SCHEMA: Final = 2
UNGROUPED: Final = (
    1  # the schema of splits without groups; they are still read, so that their runs can be opened
)
SPLIT = "split.json"
PARTS = ("train", "val", "test")
FRACTIONS = {"train": 0.7, "val": 0.2, "test": 0.1}
GROUPED, RANDOM, UNKNOWN = METHODS = ("grouped", "random", "unknown")
SHOWN = 50  # problems in a message
PLAIN_MASKS: Final = {"tumour": "", "soft_threshold": 0}  # fields of an item that are then left out
FORMAT = Format("split", "make it again with `tumorseg data`", max_bytes=2**28)


@dataclasses.dataclass(frozen=True)
class Item:
    """One image of a split. Paths are POSIX, relative to the data's root.

    organ: a name. label: the class, such as 'benign' or 'normal', or 'tumour' where only masks tell.
    masks: files whose union is the ground truth; empty where none belongs to the image (no tumour).
    files: SHA-256 of the image and of every mask, by path (of a slice: `tumorseg_train.layouts.volumes`).
    group, group_kind: the group of images of one patient or scene, and one of
    `tumorseg_train.data.grouping.KINDS`;
        empty in a split of schema 1.
    tumour, soft_threshold: how the masks are read (`tumorseg_train.layouts.masks`); left out where they are
        the defaults.
    """

    image: InnerPath
    masks: tuple[InnerPath, ...]
    organ: str
    label: str
    part: str
    height: Count
    width: Count
    tumour_px: Count
    files: dict[InnerPath, Sha256]
    group: str = ""
    group_kind: str = ""
    tumour: str = ""
    soft_threshold: Count = 0

    @property
    def rule(self) -> MaskRule:
        """How its masks are read."""
        return MaskRule(self.tumour, self.soft_threshold)

    def without_hash(self) -> tuple[str, ...]:
        """Image and masks that `files` lacks; none in a manifest that was read."""
        return tuple(name for name in (self.image, *self.masks) if name not in self.files)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A split of the images under `root`.

    method: 'grouped' keeps groups whole, 'random' does not, 'unknown' for a list of images that is no split.
    folds, fold: fold 0 .. folds - 1 of so many is 'test', the next one 'val'; 0 folds for 70/20/10.
    """

    root: Path
    seed: int
    items: tuple[Item, ...]
    method: str = UNKNOWN
    folds: Count = 0
    fold: Count = 0
    schema: Literal[1, 2] = SCHEMA

    def part(self, name: str) -> tuple[Item, ...]:
        """The items of 'train', 'val' or 'test', in the manifest's order."""
        return tuple(item for item in self.items if item.part == name)

    def copies(self) -> list[tuple[str, ...]]:
        """Images whose files have the same bytes: one tuple of paths for each such file."""
        same: dict[str, list[str]] = {}
        for item in self.items:
            same.setdefault(item.files[item.image], []).append(item.image)
        return [tuple(images) for images in same.values() if len(images) > 1]

    def straddling(self) -> list[tuple[Item, ...]]:
        """The groups of which items are in more than one part; none in a grouped split."""
        groups: dict[str, list[Item]] = {}
        for item in self.items:
            groups.setdefault(item.group, []).append(item)
        return [
            tuple(items) for name, items in groups.items() if name and len({item.part for item in items}) > 1
        ]

    def to_text(self) -> str:
        """The text of `split.json`; without the root, so that the same data and seed give the same bytes."""
        values: dict[str, Any] = {"schema": self.schema, "seed": self.seed}
        if self.schema != UNGROUPED:
            values |= {"method": self.method, "folds": self.folds, "fold": self.fold}
        values["items"] = [dataclasses.asdict(item) for item in self.items]
        for item in values["items"]:
            if self.schema == UNGROUPED:
                del item["group"], item["group_kind"]
            for name, value in PLAIN_MASKS.items():
                if item[name] == value:
                    del item[name]
        return to_json(values, indent=1)

    def digest(self) -> str:
        """SHA-256 of `to_text`: the name of this very split of these very files."""
        return hashlib.sha256(self.to_text().encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write `split.json`, whole or not at all."""
        write_text(path, self.to_text())

    @classmethod
    def read(cls, path: Path, root: Path) -> Manifest:
        """Read what `write` wrote, for images under `root`; raises BundleError."""
        values = FORMAT.read(path, dict[str, Any])
        if values.get("schema") == UNGROUPED:
            values = {"method": UNKNOWN, "folds": 0, "fold": 0, **values}
            items = FORMAT.check(values, path, Fields(items=[dict[str, Any]]))["items"]
            values["items"] = [{"group": "", "group_kind": "", **item} for item in items]
        items = FORMAT.check(values, path, Fields(items=[dict[str, Any]]))["items"]
        values["items"] = [{**PLAIN_MASKS, **item} for item in items]
        manifest: Manifest = FORMAT.check(values, path, cls, root=root)
        if unsealed := [(item, name) for item in manifest.items for name in item.without_hash()]:
            item, name = unsealed[0]
            raise BundleError(
                f"{path}: {item.image} has no SHA-256 of {name} ({len(unsealed)} such files), expected one "
                "for every image and mask: make the split again with `tumorseg data`"
            )
        return manifest


def make_manifest(
    root: Path,
    seed: int = 0,
    *,
    method: str = GROUPED,
    folds: int = 0,
    fold: int = 0,
    declared: tuple[Declaration, ...] = (),
    tell: Tell = silent,
) -> Manifest:
    """Find, check, hash, group and split the images under `root`. tell: the share of them that is read.

    Raises InputError where there is no known layout, with all problems of the files (one a line, the
    first 50 of them), and where there are too few images or groups for three parts.
    """
    samples = find_samples(root, declared)
    facts, problems = examine(root, samples, declared, tell)
    if problems:
        lines = in_few_lines(problems)
        details = lines[:SHOWN]
        if len(lines) > SHOWN:
            details.append(
                f"... and {len(lines) - SHOWN} more: `tumorseg data prepare {root}` lists them all"
            )
        raise InputError(f"{root}: {len(problems)} problem(s) in {len(samples)} images:", *details)
    return split_samples(root, seed, samples, facts, method=method, folds=folds, fold=fold)


def split_samples(
    root: Path,
    seed: int,
    samples: list[Sample],
    facts: dict[str, Facts],
    *,
    method: str = GROUPED,
    folds: int = 0,
    fold: int = 0,
) -> Manifest:
    """Hash, group and split checked samples; `facts` as `examine` returns them. Raises InputError."""
    _check_choice(seed, method, folds, fold)
    hashes = {name: content_hash(root / name) for sample in samples for name in (sample.image, *sample.masks)}
    groups = group_samples(samples, facts, hashes, drawn=(root / NOTE).is_file())
    members = [
        Member(
            name=sample.image,
            group=groups[sample.image].name if method == GROUPED else sample.image,
            draw=hashes[sample.image],
            stratum=(sample.organ, sample.label, facts[sample.image].tumour_px > 0),
            size=facts[sample.image].tumour_px / (facts[sample.image].height * facts[sample.image].width),
        )
        for sample in samples
    ]
    shares = {str(n): 1 / folds for n in range(folds)} if folds else FRACTIONS
    parts = stratify(members, shares, seed)
    if folds:
        names = {str(fold): "test", str((fold + 1) % folds): "val"}
        parts = {image: names.get(part, "train") for image, part in parts.items()}
    items = [_item(sample, facts[sample.image], hashes, groups[sample.image], parts) for sample in samples]
    items.sort(key=lambda item: (item.organ, item.label, item.image))
    manifest = Manifest(root, seed, tuple(items), method, folds, fold)
    for name in PARTS:
        if not any(item.tumour_px for item in manifest.part(name)):
            tumours = [item for item in items if item.tumour_px]
            raise InputError(
                f"{root}: got {len(items)} images, {len(tumours)} with a tumour in "
                f"{len({item.group for item in tumours})} group(s), which leaves none with a tumour for "
                f"'{name}'; expected at least three groups of one organ and class: add images"
            )
    return manifest


def _check_choice(seed: int, method: str, folds: int, fold: int) -> None:
    if seed < 0:
        raise InputError(f"seed is {seed}, expected a number from 0")
    if method not in (GROUPED, RANDOM):
        raise InputError(f"split is {method!r}, expected '{GROUPED}' or '{RANDOM}'")
    if folds != 0 and folds < 3:
        raise InputError(f"folds is {folds}, expected 3 or more (one each for test and validation), or 0")
    if not 0 <= fold < max(folds, 1):
        raise InputError(f"fold is {fold} of {folds}, expected 0 to {max(folds, 1) - 1}")


def _item(
    sample: Sample, facts: Facts, hashes: Mapping[str, str], group: Group, parts: Mapping[str, str]
) -> Item:
    return Item(
        image=sample.image,
        masks=sample.masks,
        organ=sample.organ,
        label=sample.label,
        part=parts[sample.image],
        height=facts.height,
        width=facts.width,
        tumour_px=facts.tumour_px,
        files={name: hashes[name] for name in (sample.image, *sample.masks)},
        group=group.name,
        group_kind=group.kind,
        tumour=sample.rule.tumour,
        soft_threshold=sample.rule.soft_threshold,
    )
