"""The datasets as they are downloaded: which image belongs to which masks, and whether the files are sound.

    brain     images/1.png   masks/1.png or masks/1_mask.png
    breast    Dataset_BUSI_with_GT/benign/benign (1).png   benign (1)_mask.png   benign (1)_mask_1.png ...
              and so malignant/ and normal/; the masks of an image are OR-ed, those of a normal one are empty

A root is one of these folders, or holds `brain` and `breast`, or one of them. `Dataset_BUSI_with_GT` may
be left out. Paths are POSIX and relative to the root. Nothing in a dataset is dropped silently: an image
file that is neither image nor mask is a problem. Files of other kinds, and names that begin with a dot,
are no data.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.errors import InputError
from tumorseg_runtime.images import SUFFIXES, read_image
from tumorseg_train.likeness import Look, look_of

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

CLASSES = ("benign", "malignant", "normal")
BUSI = "Dataset_BUSI_with_GT"
PHANTOMS = "PHANTOMS.txt"  # the file that says that a folder's images are drawn
LAYOUTS = f"brain/images with brain/masks, or breast/{BUSI} with {', '.join(CLASSES)} (docs/data.md)"
_MASK = re.compile(r"(?P<image>.*)_mask(_\d+)?")


class Pair(Protocol):
    """What names an image and its masks: a `Sample`, or an `Item` of a split."""

    @property
    def image(self) -> str: ...

    @property
    def masks(self) -> tuple[str, ...]: ...


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image as found. organ: 'brain' or 'breast'. label: the class, 'tumour' where there are none.

    patient: the patient's number in the data; empty where the data does not tell.
    """

    image: str
    masks: tuple[str, ...]
    organ: str
    label: str
    patient: str = ""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What reading a sound sample tells: size in pixels, pixels of tumour, and what is compared of it."""

    height: int
    width: int
    tumour_px: int
    look: Look = dataclasses.field(repr=False, compare=False)


def find_samples(root: Path) -> list[Sample]:
    """All images under `root` with their masks, in the order of their paths, whatever their state.

    Raises InputError where no image of a known layout is found.
    """
    samples: list[Sample] = []
    for organ, folder in find_layouts(root):
        samples += _brain_samples(root, folder) if organ == "brain" else _breast_samples(root, folder)
    if not samples:
        raise InputError(f"{root}: its folders hold no images, expected files in {LAYOUTS}: copy them again")
    return sorted(samples, key=lambda sample: sample.image)


def find_layouts(root: Path) -> list[tuple[str, Path]]:
    """(organ, folder) of each dataset at or right under `root`; raises InputError if there is none."""
    if not root.is_dir():
        raise InputError(f"{root}: is not a folder, expected {LAYOUTS}")
    found: list[tuple[str, Path]] = []
    for folder in (root, root / "brain"):
        parts = [name for name in ("images", "masks") if (folder / name).is_dir()]
        if len(parts) == 1:
            raise InputError(f"{folder}: has {parts[0]}/ only, expected images/ and masks/: copy both")
        if parts:
            found.append(("brain", folder))
    for folder in (root, root / BUSI, root / "breast", root / "breast" / BUSI):
        if any((folder / label).is_dir() for label in CLASSES):
            found.append(("breast", folder))
    if not found:
        there = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
        raise InputError(f"{root}: holds {there}, expected {LAYOUTS}; a folder yet to be made gets phantoms")
    return found


def unread_folders(root: Path) -> list[str]:
    """Names of folders right under `root` that belong to no dataset and are not read."""
    folders = [folder for _, folder in find_layouts(root)]
    if root in folders:
        return []  # all of the root is one dataset: an image that is strange in it is a problem
    used = {folder.relative_to(root).parts[0] for folder in folders}
    return sorted(
        path.name
        for path in root.iterdir()
        if path.is_dir() and path.name not in used and not path.name.startswith(".")
    )


def _image_files(folder: Path) -> list[Path]:
    """Image files right in a folder, sorted; none where the folder is absent."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _is_image_file(path))


def _is_image_file(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _brain_samples(root: Path, folder: Path) -> list[Sample]:
    masks: dict[str, list[str]] = {}
    for path in _image_files(folder / "masks"):
        for stem in {path.stem, path.stem.removesuffix("_mask")}:
            masks.setdefault(stem, []).append(path.relative_to(root).as_posix())
    return [
        Sample(path.relative_to(root).as_posix(), tuple(masks.get(path.stem, ())), "brain", "tumour")
        for path in _image_files(folder / "images")
    ]


def _breast_samples(root: Path, folder: Path) -> list[Sample]:
    samples = []
    for label in CLASSES:
        images: list[Path] = []
        masks: dict[str, list[str]] = {}
        for path in _image_files(folder / label):
            match = _MASK.fullmatch(path.stem)
            if match is None:
                images.append(path)
            else:
                masks.setdefault(match["image"], []).append(path.relative_to(root).as_posix())
        for path in images:
            name = path.relative_to(root).as_posix()
            samples.append(Sample(name, tuple(masks.get(path.stem, ())), "breast", label))
    return samples


def read_pair(root: Path, sample: Pair) -> tuple[UInt8Array, BoolArray]:
    """Image uint8 (H, W), or (H, W, 3) RGB if truly coloured, and its masks OR-ed: bool (H, W).

    An image whose channels are all equal is gray. An image without masks has no tumour. Raises InputError
    for a file that cannot be read and for a mask of another size.
    """
    image = read_image(root / sample.image)
    if image.ndim == 3 and all(np.array_equal(image[:, :, 0], image[:, :, i]) for i in (1, 2)):
        image = np.ascontiguousarray(image[:, :, 0])
    union = np.zeros(image.shape[:2], np.bool_)
    for name in sample.masks:
        mask = read_image(root / name)
        if mask.shape[:2] != union.shape:
            raise InputError(_size_problem(name, mask, sample.image, union.shape))
        union |= _is_tumour(mask)
    return image, union


def _is_tumour(mask: UInt8Array) -> BoolArray:
    """Values of a mask file, (H, W) or (H, W, 3), `read_image` has dropped its alpha -> bool (H, W)."""
    return np.asarray(mask > 0 if mask.ndim == 2 else (mask > 0).any(axis=2), np.bool_)


def check_samples(root: Path, samples: list[Sample]) -> list[str]:
    """Every problem of every file, one line each with what to do; empty if all is well. Reads all files."""
    return examine(root, samples)[1]


def examine(root: Path, samples: list[Sample]) -> tuple[dict[str, Facts], list[str]]:
    """Facts of each sound sample by its image's path, and the problems that `check_samples` returns."""
    facts: dict[str, Facts] = {}
    problems: list[str] = []
    for sample in samples:
        found, wrong = _examine_one(root, sample)
        problems += wrong
        if found is not None:
            facts[sample.image] = found
    return facts, problems + _shared_masks(samples) + _strays(root, samples)


def _examine_one(root: Path, sample: Sample) -> tuple[Facts | None, list[str]]:
    problems: list[str] = []
    if not sample.masks and sample.label != "normal":
        problems.append(
            f"{sample.image}: has no mask, expected {_expected_mask(sample)}: add it (all black if there is "
            "no tumour), or take the image out"
        )
    shape: tuple[int, ...] | None = None
    look: Look | None = None
    try:
        image = read_image(root / sample.image)
        shape, look = image.shape[:2], look_of(image)
    except InputError as error:
        problems.append(_relative(root, error))
    union: BoolArray | None = None
    for name in sample.masks:
        try:
            mask = read_image(root / name)
        except InputError as error:
            problems.append(_relative(root, error))
            continue
        problem = _value_problem(name, mask)
        if problem:
            problems.append(problem)
        if shape is not None and mask.shape[:2] != shape:
            problems.append(_size_problem(name, mask, sample.image, shape))
        elif shape is not None:
            union = _is_tumour(mask) if union is None else union | _is_tumour(mask)
    area = 0 if union is None else int(union.sum())
    if sample.label == "normal" and area:
        problems.append(
            f"{sample.image}: is normal, but its masks mark {area} pixels, expected none: move image and "
            "masks to the right class, or blacken the mask"
        )
    if sample.label in ("benign", "malignant") and union is not None and not problems and not area:
        problems.append(
            f"{sample.image}: is {sample.label}, but its masks are empty, expected a tumour: mark it, or "
            "move image and masks to normal"
        )
    if problems or shape is None or look is None:
        return None, problems
    return Facts(shape[0], shape[1], area, look), []


def _expected_mask(sample: Sample) -> str:
    path = Path(sample.image)
    return f"masks/{path.name}" if sample.organ == "brain" else f"{path.stem}_mask{path.suffix}"


def _relative(root: Path, error: InputError) -> str:
    """The message of an error about a file under `root`, with the path that the other problems use."""
    return str(error).removeprefix(f"{root}/")


def _size_problem(name: str, mask: UInt8Array, image: str, shape: tuple[int, ...]) -> str:
    return (
        f"{name}: has {mask.shape[1]}x{mask.shape[0]} pixels, expected {shape[1]}x{shape[0]} as {image}: "
        "draw or export it at the image's size"
    )


def _value_problem(name: str, mask: UInt8Array) -> str:
    """What is wrong with a mask's values: 0 must be the background, and one other value the tumour."""
    values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    if len(values) <= 2 and values[0] == 0:
        return ""
    some = ", ".join(map(str, values[:4])) + (", ..." if len(values) > 4 else "")
    hint = "save it as PNG, not JPEG, without smoothing" if len(values) > 2 else "make the background 0"
    return f"{name}: has {len(values)} value(s) ({some}), expected 0 and one other: {hint}"


def _shared_masks(samples: list[Sample]) -> list[str]:
    uses = Counter(name for sample in samples for name in sample.masks)
    return [
        f"{name}: belongs to {count} images of the same stem, expected one: rename or remove the others"
        for name, count in sorted(uses.items())
        if count > 1
    ]


def _strays(root: Path, samples: list[Sample]) -> list[str]:
    """Image files inside the datasets that are neither an image nor a mask of one."""
    known = {name for sample in samples for name in (sample.image, *sample.masks)}
    folders = {folder for _, folder in find_layouts(root)}
    files = {path for folder in folders for path in folder.rglob("*") if _is_image_file(path)}
    files |= set(_image_files(root))
    problems = []
    for path in sorted(files):
        name = path.relative_to(root).as_posix()
        if name in known or any(part.startswith(".") for part in Path(name).parts):
            continue
        is_mask = path.parent.name == "masks" or _MASK.fullmatch(path.stem) is not None
        problems.append(
            f"{name}: is a mask without an image, expected one of the same name: add it or remove the mask"
            if is_mask
            else f"{name}: is an image outside the layout, expected only images and masks: move it out"
        )
    return problems
