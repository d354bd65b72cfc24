"""A dataset's images and masks: which belong together, and their pixels.

Which files those are, says a `dataset.toml` (`tumorseg_train.layouts.declaration`), or a layout that is known
by its folders' names (`tumorseg_train.layouts.known`). Paths are POSIX and relative to the root. Nothing in a
dataset is dropped silently: an image file that is neither image nor mask is a problem
(`tumorseg_train.data.checks`). Files of other kinds, and names that begin with a dot, are no data.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.read import read_image, read_stored
from tumorseg_train.layouts import figshare_mat as figshare_mat
from tumorseg_train.layouts.declaration import TUMOUR, Declaration
from tumorseg_train.layouts.known import find_layouts
from tumorseg_train.layouts.masks import PLAIN, BoolArray, MaskRule, Pixels, read_tumour
from tumorseg_train.layouts.pairing import find_pairs

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
    """

    image: str
    masks: tuple[str, ...]
    organ: str
    label: str
    patient: str = ""
    rule: MaskRule = PLAIN
    neighbours: bool = False


def find_samples(root: Path, declared: tuple[Declaration, ...] = ()) -> list[Sample]:
    """All images under `root` with their masks, in the order of their paths, whatever their state.

    declared: datasets that stand in no `dataset.toml`. Raises InputError where no image is found.
    """
    samples: dict[str, Sample] = {}
    for layout in find_layouts(root, declared):
        for one in layout.declared:
            for pair in find_pairs(root, one).pairs:
                image = pair.image.relative_to(root).as_posix()
                masks = tuple(path.relative_to(root).as_posix() for path in pair.masks)
                if image in samples:
                    raise InputError(
                        f"{root / image}: is in two datasets that are declared, expected one: correct it"
                    )
                samples[image] = Sample(
                    image, masks, one.organ, pair.label, pair.patient, one.rule, one.neighbours
                )
        samples |= {
            path.relative_to(root).as_posix(): _slice_sample(root, path, layout.organ)
            for path in layout.slices
        }
    if not samples:
        raise InputError(
            f"{root}: its folders hold no images, expected some where the layout has them (docs/data.md): "
            "copy them again"
        )
    return sorted(samples.values(), key=lambda sample: sample.image)


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
    image = read_image(path)
    if image.ndim == 3 and all(np.array_equal(image[:, :, 0], image[:, :, i]) for i in (1, 2)):
        image = np.ascontiguousarray(image[:, :, 0])
    return image


def read_mask(path: Path) -> Pixels:
    """A mask file's values as stored, integers (H, W) or (H, W, 3) RGB, without alpha; raises InputError."""
    return figshare_mat.read_slice_mask(path) if figshare_mat.is_slice(path) else read_stored(path)


def read_pair(root: Path, sample: Pair) -> tuple[UInt8Array, BoolArray]:
    """`read_pixels` of the image, and its masks OR-ed: bool (H, W).

    An image without masks has no tumour. Raises InputError for a file that cannot be read, a mask that is
    none by its rule, and one of another size.
    """
    image = read_pixels(root / sample.image)
    union = np.zeros(image.shape[:2], np.bool_)
    for name in sample.masks:
        mask = read_mask(root / name)
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
