"""A dataset's images and masks: which belong together, and their pixels.

Which files those are, says a `dataset.toml` (`tumorseg_train.layouts.declaration`), or a layout that is known
by its folders' names (`tumorseg_train.layouts.known`). Paths are POSIX and relative to the root; a volume is
as many images as it has slices, named `scan.nii.gz[12]` (`tumorseg_train.layouts.volumes`). Nothing in a
dataset is dropped silently: an image file that is neither image nor mask is a problem
(`tumorseg_train.data.checks`). Files of other kinds, and names that begin with a dot, are no data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.nifti.header import open_volume
from tumorseg_runtime.images.nifti.names import is_volume, slice_of
from tumorseg_runtime.images.nifti.slices import read_label_slice, read_slice
from tumorseg_runtime.images.read import read_image, read_stored
from tumorseg_train.layouts import figshare_mat as figshare_mat
from tumorseg_train.layouts.declaration import TUMOUR, Declaration
from tumorseg_train.layouts.known import find_layouts
from tumorseg_train.layouts.masks import PLAIN, BoolArray, MaskRule, Pixels, read_tumour
from tumorseg_train.layouts.pairing import FoundPair, find_pairs
from tumorseg_train.layouts.volumes import check_grid, slice_names

UInt8Array = npt.NDArray[np.uint8]


class Pair(Protocol):
    """What names an image, its masks and how they are read: a `Sample`, or an `Item` of a split."""

    @property
    def image(self) -> str: ...

    @property
    def masks(self) -> tuple[str, ...]: ...

    @property
    def rule(self) -> MaskRule: ...


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image as found. organ: a name. label: the class, 'tumour' where there are none.

    patient: the patient in the data; empty where the data does not tell. rule: how its masks are read.
    neighbours: whether its name is a slice number, whose neighbours may show the same patient.
    compared: whether it is looked for among all others; of a volume's slices only the middle one is.
    """

    image: str
    masks: tuple[str, ...]
    organ: str
    label: str
    patient: str = ""
    rule: MaskRule = PLAIN
    neighbours: bool = False
    compared: bool = True


def find_samples(root: Path, declared: tuple[Declaration, ...] = ()) -> list[Sample]:
    """All images under `root` with their masks, in the order of their paths, whatever their state.

    declared: datasets that stand in no `dataset.toml`. Raises InputError where no image is found.
    """
    samples: dict[str, Sample] = {}
    for layout in find_layouts(root, declared):
        for one in layout.declared:
            for pair in find_pairs(root, one).pairs:
                for sample in _samples(root, pair, one):
                    if sample.image in samples:
                        raise InputError(
                            f"{pair.image}: is in two datasets that are declared, expected one: correct it"
                        )
                    samples[sample.image] = sample
        samples |= {
            path.relative_to(root).as_posix(): _slice_sample(root, path, layout.organ)
            for path in layout.slices
        }
    if not samples:
        raise InputError(
            f"{root}: its folders hold no images, expected some where the layout has them (docs/data.md): "
            "copy them again"
        )
    return sorted(samples.values(), key=lambda sample: _in_order(sample.image))


def _in_order(image: str) -> tuple[str, int]:
    found = slice_of(Path(image))
    return (image, 0) if found is None else (found[0].as_posix(), found[1])


def _samples(root: Path, pair: FoundPair, declared: Declaration) -> Iterator[Sample]:
    """The images of a pair of files: one, or the slices of a volume, which are of one patient."""
    image = pair.image.relative_to(root).as_posix()
    masks = [path.relative_to(root).as_posix() for path in pair.masks]
    names = slice_names(pair.image)
    for index, name in enumerate(names):
        yield Sample(
            image=image + name,
            masks=tuple(mask + (name if is_volume(Path(mask)) else "") for mask in masks),
            organ=declared.organ,
            label=pair.label,
            patient=pair.patient or (image if is_volume(pair.image) else ""),
            rule=declared.rule,
            neighbours=declared.neighbours,
            compared=index == len(names) // 2,
        )


def _slice_sample(root: Path, path: Path, organ: str) -> Sample:
    name = path.relative_to(root).as_posix()
    try:
        label, patient = figshare_mat.read_origin(path)
    except InputError:  # reading its pixels says what is wrong (`tumorseg_train.data.checks`)
        label, patient = TUMOUR, ""
    return Sample(name, (name,), organ, label, patient)


def read_pixels(path: Path) -> UInt8Array:
    """An image file's pixels: uint8 (H, W), or (H, W, 3) RGB if truly coloured; raises InputError.

    An image whose channels are all equal is gray.
    """
    if figshare_mat.is_slice(path):
        return figshare_mat.read_slice_image(path)
    if found := _slice_of(path):
        return read_slice(*found)
    image = read_image(path)
    if image.ndim == 3 and all(np.array_equal(image[:, :, 0], image[:, :, i]) for i in (1, 2)):
        image = np.ascontiguousarray(image[:, :, 0])
    return image


def read_mask(path: Path) -> Pixels:
    """A mask file's values as stored, integers (H, W) or (H, W, 3) RGB, without alpha; raises InputError."""
    if found := _slice_of(path):
        return read_label_slice(*found)
    return figshare_mat.read_slice_mask(path) if figshare_mat.is_slice(path) else read_stored(path)


def _slice_of(path: Path) -> tuple[Path, int] | None:
    """The volume and index of a slice's name, None for a plain file; raises InputError for a whole volume."""
    if is_volume(path):
        open_volume(path)
        raise InputError(f"{path}: is a volume, expected a single image: pair volumes with volumes")
    return slice_of(path)


def read_pair(root: Path, sample: Pair) -> tuple[UInt8Array, BoolArray]:
    """`read_pixels` of the image, and its masks OR-ed: bool (H, W).

    An image without masks has no tumour. Raises InputError for a file that cannot be read, a mask that is
    none by its rule, and one of another size.
    """
    image = read_pixels(root / sample.image)
    union = np.zeros(image.shape[:2], np.bool_)
    for name in sample.masks:
        mask = read_mask(root / name)
        try:
            check_grid(root / sample.image, root / name)
        except InputError as error:
            raise InputError(f"{root / name}: {error}") from error
        if mask.shape[:2] != union.shape:
            raise InputError(size_problem(name, mask, sample.image, union.shape))
        try:
            union |= read_tumour(mask, sample.rule)
        except InputError as error:
            raise InputError(f"{root / name}: {error}") from error
    return image, union


def size_problem(name: str, mask: Pixels, image: str, shape: tuple[int, ...]) -> str:
    """The line about a mask whose size is not its image's."""
    return (
        f"{name}: has {mask.shape[1]}x{mask.shape[0]} pixels, expected {shape[1]}x{shape[0]} as {image}: "
        "draw or export it at the image's size"
    )
