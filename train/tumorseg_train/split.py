"""The split: which image is for training, validation or test, written down once with every file's hash.

Each group of organ, class and tumour or not is split 70/20/10 by itself, in an order that follows from
the seed and the content of the images: names, folders and the file system's order play no part. Images
with the same bytes stay in the same part. Patients are not known in these datasets (docs/data.md).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from tumorseg_runtime.bundle import sha256_of
from tumorseg_runtime.errors import BundleError, InputError
from tumorseg_train.datasets import Facts, Sample, examine, find_samples

SCHEMA = 1
SPLIT = "split.json"
PARTS = ("train", "val", "test")
FRACTIONS = {"train": 0.7, "val": 0.2, "test": 0.1}
SHOWN = 50  # problems in a message


@dataclasses.dataclass(frozen=True)
class Item:
    """One image of a split. Paths are POSIX, relative to the data's root.

    organ: 'brain' or 'breast'. label: 'benign', 'malignant', 'normal', or 'tumour' where only masks tell.
    masks: files whose union is the ground truth; empty where none belongs to the image (no tumour).
    files: SHA-256 of the image and of every mask, by path.
    """

    image: str
    masks: tuple[str, ...]
    organ: str
    label: str
    part: str
    height: int
    width: int
    tumour_px: int
    files: dict[str, str]

    def without_hash(self) -> tuple[str, ...]:
        """Image and masks that `files` lacks; none in a manifest that was read."""
        return tuple(name for name in (self.image, *self.masks) if not isinstance(self.files.get(name), str))


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A split of the images under `root`."""

    root: Path
    seed: int
    items: tuple[Item, ...]

    def part(self, name: str) -> tuple[Item, ...]:
        """The items of 'train', 'val' or 'test', in the manifest's order."""
        return tuple(item for item in self.items if item.part == name)

    def copies(self) -> list[tuple[str, ...]]:
        """Images whose files have the same bytes: one tuple of paths for each such file."""
        same: dict[str, list[str]] = {}
        for item in self.items:
            same.setdefault(item.files[item.image], []).append(item.image)
        return [tuple(images) for images in same.values() if len(images) > 1]

    def to_text(self) -> str:
        """The text of `split.json`; without the root, so that the same data and seed give the same bytes."""
        values: dict[str, Any] = {"schema": SCHEMA, "seed": self.seed}
        values["items"] = [dataclasses.asdict(item) for item in self.items]
        return json.dumps(values, indent=1, ensure_ascii=False) + "\n"

    def digest(self) -> str:
        """SHA-256 of `to_text`: the name of this very split of these very files."""
        return hashlib.sha256(self.to_text().encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write `split.json`, whole or not at all."""
        part = path.with_name(path.name + ".part")
        part.write_text(self.to_text(), encoding="utf-8")
        part.replace(path)

    @classmethod
    def read(cls, path: Path, root: Path) -> Manifest:
        """Read what `write` wrote, for images under `root`; raises BundleError."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["schema"] != SCHEMA:
                raise BundleError(f"{path}: schema is {values['schema']}, expected {SCHEMA}: split again")
            items = tuple(Item(**{**item, "masks": tuple(item["masks"])}) for item in values["items"])
            manifest = cls(root, values["seed"], items)
            unsealed = [(item, name) for item in items for name in item.without_hash()]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{path}: is not a split ({error}): make it with `tumorseg data`") from error
        if unsealed:
            item, name = unsealed[0]
            raise BundleError(
                f"{path}: {item.image} has no SHA-256 of {name} ({len(unsealed)} such files), expected one "
                "for every image and mask: make the split again with `tumorseg data`"
            )
        return manifest


def make_manifest(root: Path, seed: int = 0) -> Manifest:
    """Find, check, hash and split the images under `root`.

    Raises InputError where there is no known layout, with all problems of the files (one a line, the
    first 50 of them), and where there are too few images for three parts.
    """
    samples = find_samples(root)
    facts, problems = examine(root, samples)
    if problems:
        lines = [f"{root}: {len(problems)} problem(s) in {len(samples)} images:", *problems[:SHOWN]]
        if len(problems) > SHOWN:
            lines.append(
                f"... and {len(problems) - SHOWN} more: `tumorseg data prepare {root}` lists them all"
            )
        raise InputError("\n  ".join(lines))
    return split_samples(root, seed, samples, facts)


def split_samples(root: Path, seed: int, samples: list[Sample], facts: dict[str, Facts]) -> Manifest:
    """Hash and split checked samples; `facts` by image as `examine` returns them. Raises InputError."""
    if seed < 0:
        raise InputError(f"seed is {seed}, expected a number from 0")
    hashes = {name: sha256_of(root / name) for sample in samples for name in (sample.image, *sample.masks)}
    parts = _assign(seed, samples, facts, hashes)
    items = [
        Item(
            image=sample.image,
            masks=sample.masks,
            organ=sample.organ,
            label=sample.label,
            part=parts[hashes[sample.image]],
            height=facts[sample.image].height,
            width=facts[sample.image].width,
            tumour_px=facts[sample.image].tumour_px,
            files={name: hashes[name] for name in (sample.image, *sample.masks)},
        )
        for sample in samples
    ]
    items.sort(key=lambda item: (item.organ, item.label, item.image))
    manifest = Manifest(root, seed, tuple(items))
    for name in PARTS:
        if not any(item.tumour_px for item in manifest.part(name)):
            tumours = sum(item.tumour_px > 0 for item in items)
            raise InputError(
                f"{root}: got {len(items)} images, {tumours} with a tumour, which leaves none with a tumour "
                f"for '{name}'; expected at least three different ones of one organ and class: add images"
            )
    return manifest


def _assign(
    seed: int, samples: list[Sample], facts: dict[str, Facts], hashes: dict[str, str]
) -> dict[str, str]:
    """Part of each image by the image's hash."""
    copies = Counter(hashes[sample.image] for sample in samples)
    strata: dict[tuple[str, str, bool], list[str]] = {}
    placed: set[str] = set()
    for sample in sorted(samples, key=lambda sample: (sample.organ, sample.label, sample.image)):
        digest = hashes[sample.image]
        if digest not in placed:  # copies go where the first one goes
            stratum = (sample.organ, sample.label, facts[sample.image].tumour_px > 0)
            strata.setdefault(stratum, []).append(digest)
            placed.add(digest)
    parts: dict[str, str] = {}
    for digests in strata.values():
        # The largest sets of copies first, while every part has room for them.
        digests.sort(key=lambda digest: (-copies[digest], _draw(seed, digest)))
        left = _sizes(sum(copies[digest] for digest in digests))
        for digest in digests:
            part = max(PARTS, key=lambda name: left[name])  # the emptiest part; ties in the order of PARTS
            left[part] -= copies[digest]
            parts[digest] = part
    return parts


def _draw(seed: int, digest: str) -> bytes:
    """A draw that depends on the seed and the image's bytes alone."""
    return hashlib.sha256(f"{seed} {digest}".encode()).digest()


def _sizes(count: int) -> dict[str, int]:
    """Images for each part of a stratum: 70/20/10 rounded, and at least one each where there are three."""
    if count < 3:
        return {"train": 1, "val": count - 1, "test": 0}
    val, test = (max(1, round(count * FRACTIONS[name])) for name in ("val", "test"))
    return {"train": count - val - test, "val": val, "test": test}
