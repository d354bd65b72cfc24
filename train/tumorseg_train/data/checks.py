"""Whether a dataset's files are sound: every problem of every file, and the facts of what is sound."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np

from tumorseg_runtime.core.errors import InputError
from tumorseg_train.data import figshare_mat as figshare_mat
from tumorseg_train.data.datasets import (
    MASK,
    BoolArray,
    Sample,
    UInt8Array,
    find_layouts,
    image_files,
    is_image_file,
    is_tumour,
    read_mask,
    read_pixels,
    size_problem,
)
from tumorseg_train.data.near_duplicates import Fingerprint, fingerprint_of

UNREADABLE, MISMATCHED, EMPTY, STRAY = KINDS = ("unreadable", "mismatched", "empty", "stray")
MEANING = {
    UNREADABLE: "files that cannot be read, and masks whose values are no mask",
    MISMATCHED: "masks that are missing, of another size, of several images, or in a normal image",
    EMPTY: "images of a class with a tumour whose masks are empty",
    STRAY: "image files that are neither an image nor its mask",
}


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is wrong with a file. kind: one of `KINDS`. file: relative to the root. text: one line."""

    kind: str
    file: str
    text: str


@dataclasses.dataclass(frozen=True)
class Facts:
    """What reading a sound sample tells: size in pixels, pixels of tumour, and what is compared of it."""

    height: int
    width: int
    tumour_px: int
    coloured: bool
    fingerprint: Fingerprint = dataclasses.field(repr=False, compare=False)


def check_samples(root: Path, samples: list[Sample]) -> list[str]:
    """Every problem of every file, one line each with what to do; empty if all is well. Reads all files."""
    return [problem.text for problem in examine(root, samples)[1]]


def examine(root: Path, samples: list[Sample]) -> tuple[dict[str, Facts], list[Problem]]:
    """Facts of each sound sample by its image's path, and all problems."""
    facts: dict[str, Facts] = {}
    problems: list[Problem] = []
    for sample in samples:
        found, wrong = _examine_one(root, sample)
        problems += wrong
        if found is not None:
            facts[sample.image] = found
    return facts, problems + _shared_masks(samples) + _strays(root, samples)


def _examine_one(root: Path, sample: Sample) -> tuple[Facts | None, list[Problem]]:
    problems: list[Problem] = []

    def wrong(kind: str, file: str, text: str) -> None:
        problems.append(Problem(kind, file, text))

    if not sample.masks and sample.label != "normal":
        wrong(
            MISMATCHED, sample.image,
            f"{sample.image}: has no mask, expected {_expected_mask(sample)}: add it (all black if there is "
            "no tumour), or take the image out",
        )  # fmt: skip
    image: UInt8Array | None = None
    try:
        image = read_pixels(root / sample.image)
        if figshare_mat.is_slice(root / sample.image):
            figshare_mat.read_origin(root / sample.image)
    except InputError as error:
        wrong(UNREADABLE, sample.image, _relative(root, error))
    union: BoolArray | None = None
    for name in sample.masks:
        try:
            mask = read_mask(root / name)
        except InputError as error:
            if name != sample.image or not problems:  # a .mat is both; one line is enough
                wrong(UNREADABLE, name, _relative(root, error))
            continue
        problem = _value_problem(name, mask)
        if problem:
            wrong(UNREADABLE, name, problem)
        if image is not None and mask.shape[:2] != image.shape[:2]:
            wrong(MISMATCHED, name, size_problem(name, mask, sample.image, image.shape))
        elif image is not None:
            union = is_tumour(mask) if union is None else union | is_tumour(mask)
    area = 0 if union is None else int(union.sum())
    if sample.label == "normal" and area:
        wrong(
            MISMATCHED, sample.image,
            f"{sample.image}: is normal, but its masks mark {area} pixels, expected none: move image and "
            "masks to the right class, or blacken the mask",
        )  # fmt: skip
    if sample.label not in ("normal", "tumour") and union is not None and not problems and not area:
        wrong(
            EMPTY, sample.image,
            f"{sample.image}: is {sample.label}, but its masks are empty, expected a tumour: mark it, or "
            + ("move image and masks to normal" if sample.organ == "breast" else "take the image out"),
        )  # fmt: skip
    if problems or image is None:
        return None, problems
    return Facts(image.shape[0], image.shape[1], area, image.ndim == 3, fingerprint_of(image)), []


def _expected_mask(sample: Sample) -> str:
    path = Path(sample.image)
    return f"masks/{path.name}" if sample.organ == "brain" else f"{path.stem}_mask{path.suffix}"


def _relative(root: Path, error: InputError) -> str:
    """The message of an error about a file under `root`, with the path that the other problems use."""
    return str(error).removeprefix(f"{root}/")


def _value_problem(name: str, mask: UInt8Array) -> str:
    """What is wrong with a mask's values: 0 must be the background, and one other value the tumour."""
    values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    if len(values) <= 2 and values[0] == 0:
        return ""
    some = ", ".join(map(str, values[:4])) + (", ..." if len(values) > 4 else "")
    hint = "save it as PNG, not JPEG, without smoothing" if len(values) > 2 else "make the background 0"
    return f"{name}: has {len(values)} value(s) ({some}), expected 0 and one other: {hint}"


def _shared_masks(samples: list[Sample]) -> list[Problem]:
    uses = Counter(name for sample in samples for name in sample.masks)
    return [
        Problem(
            MISMATCHED,
            name,
            f"{name}: belongs to {count} images of the same stem, expected one: rename or remove the others",
        )
        for name, count in sorted(uses.items())
        if count > 1
    ]


def _strays(root: Path, samples: list[Sample]) -> list[Problem]:
    """Image files inside the datasets that are neither an image nor a mask of one."""
    known = {name for sample in samples for name in (sample.image, *sample.masks)}
    folders = {folder for _, folder in find_layouts(root)}
    files = {path for folder in folders for path in folder.rglob("*") if is_image_file(path)}
    files |= set(image_files(root))
    problems = []
    for path in sorted(files):
        name = path.relative_to(root).as_posix()
        if name in known or any(part.startswith(".") for part in Path(name).parts):
            continue
        is_mask = path.parent.name == "masks" or MASK.fullmatch(path.stem) is not None
        text = (
            f"{name}: is a mask without an image, expected one of the same name: add it or remove the mask"
            if is_mask
            else f"{name}: is an image outside the layout, expected only images and masks: move it out"
        )
        problems.append(Problem(STRAY, name, text))
    return problems
