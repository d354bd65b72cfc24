"""The datasets as they are downloaded: which image belongs to which masks, and whether the files are sound.

    brain     images/1.png   masks/1.png or masks/1_mask.png
              or the author's own 1.mat (`tumorseg_train.data.figshare_mat`): image, mask, class and patient
              in one file
    breast    Dataset_BUSI_with_GT/benign/benign (1).png   benign (1)_mask.png   benign (1)_mask_1.png ...
              and so malignant/ and normal/; the masks of an image are OR-ed, those of a normal one are empty

A root is one of these folders, or holds `brain` and `breast`, or one of them. `Dataset_BUSI_with_GT` may
be left out. Paths are POSIX and relative to the root. Nothing in a dataset is dropped silently: an image
file that is neither image nor mask is a problem (`tumorseg_train.data.checks`). Files of other kinds, and
names that begin with a dot, are no data.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.read import SUFFIXES, read_image
from tumorseg_train.data import figshare_mat as figshare_mat

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

CLASSES = ("benign", "malignant", "normal")
BUSI = "Dataset_BUSI_with_GT"
PHANTOMS = "PHANTOMS.txt"  # the file that says that a folder's images are drawn
LAYOUTS = (
    f"brain/images with brain/masks, brain/1.mat ..., or breast/{BUSI} with {', '.join(CLASSES)} "
    "(docs/data.md)"
)
MASK = re.compile(r"(?P<image>.*)_mask(_\d+)?")


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
        if parts or slice_files(folder):
            found.append(("brain", folder))
    for folder in (root, root / BUSI, root / "breast", root / "breast" / BUSI):
        if any((folder / label).is_dir() for label in CLASSES):
            found.append(("breast", folder))
    if not found:
        there = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
        raise InputError(
            f"{root}: holds {there}, expected {LAYOUTS}: check the path, or give a new folder and --phantoms"
        )
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


def image_files(folder: Path) -> list[Path]:
    """Image files right in a folder, sorted; none where the folder is absent."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if is_image_file(path))


def slice_files(folder: Path) -> list[Path]:
    """Cheng's `.mat` slices in a folder and in the folders in it that his archives unpack to; sorted."""
    folders = [folder, *folder.glob(figshare_mat.FOLDERS)] if folder.is_dir() else []
    return sorted(
        path
        for one in folders
        if one.is_dir()
        for path in one.iterdir()
        if figshare_mat.is_slice(path) and path.is_file()
    )


def is_image_file(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _brain_samples(root: Path, folder: Path) -> list[Sample]:
    masks: dict[str, list[str]] = {}
    for path in image_files(folder / "masks"):
        for stem in {path.stem, path.stem.removesuffix("_mask")}:
            masks.setdefault(stem, []).append(path.relative_to(root).as_posix())
    return [
        Sample(path.relative_to(root).as_posix(), tuple(masks.get(path.stem, ())), "brain", "tumour")
        for path in image_files(folder / "images")
    ] + [_slice_sample(root, path) for path in slice_files(folder)]


def _slice_sample(root: Path, path: Path) -> Sample:
    name = path.relative_to(root).as_posix()
    try:
        label, patient = figshare_mat.read_origin(path)
    except InputError:  # reading its pixels says what is wrong (`tumorseg_train.data.checks`)
        label, patient = "tumour", ""
    return Sample(name, (name,), "brain", label, patient)


def _breast_samples(root: Path, folder: Path) -> list[Sample]:
    samples = []
    for label in CLASSES:
        images: list[Path] = []
        masks: dict[str, list[str]] = {}
        for path in image_files(folder / label):
            match = MASK.fullmatch(path.stem)
            if match is None:
                images.append(path)
            else:
                masks.setdefault(match["image"], []).append(path.relative_to(root).as_posix())
        for path in images:
            name = path.relative_to(root).as_posix()
            samples.append(Sample(name, tuple(masks.get(path.stem, ())), "breast", label))
    return samples


def read_pixels(path: Path) -> UInt8Array:
    """An image file's pixels: uint8 (H, W), or (H, W, 3) RGB if truly coloured; raises InputError.

    An image whose channels are all equal is gray.
    """
    if figshare_mat.is_slice(path):
        return figshare_mat.read_slice_image(path)
    image = read_image(path)
    if image.ndim == 3 and all(np.array_equal(image[:, :, 0], image[:, :, i]) for i in (1, 2)):
        image = np.ascontiguousarray(image[:, :, 0])
    return image


def read_mask(path: Path) -> UInt8Array:
    """A mask file's values, uint8 (H, W) or (H, W, 3), without alpha; raises InputError."""
    return figshare_mat.read_slice_mask(path) if figshare_mat.is_slice(path) else read_image(path)


def read_pair(root: Path, sample: Pair) -> tuple[UInt8Array, BoolArray]:
    """`read_pixels` of the image, and its masks OR-ed: bool (H, W).

    An image without masks has no tumour. Raises InputError for a file that cannot be read and for a mask of
    another size.
    """
    image = read_pixels(root / sample.image)
    union = np.zeros(image.shape[:2], np.bool_)
    for name in sample.masks:
        mask = read_mask(root / name)
        if mask.shape[:2] != union.shape:
            raise InputError(size_problem(name, mask, sample.image, union.shape))
        union |= is_tumour(mask)
    return image, union


def is_tumour(mask: UInt8Array) -> BoolArray:
    """Values of a mask file as `read_mask` returns them -> bool (H, W)."""
    return np.asarray(mask > 0 if mask.ndim == 2 else (mask > 0).any(axis=2), np.bool_)


def size_problem(name: str, mask: UInt8Array, image: str, shape: tuple[int, ...]) -> str:
    """The line about a mask whose size is not its image's."""
    return (
        f"{name}: has {mask.shape[1]}x{mask.shape[0]} pixels, expected {shape[1]}x{shape[0]} as {image}: "
        "draw or export it at the image's size"
    )
