"""Two decisions on one image, PyTorch's and an artefact's: which pixels flip, and what becomes of lesions.

A pixel may flip where PyTorch's logit lies nearer to the threshold than the artefact errs: this is the band.
A flip outside of it cannot come from the logits' error: something after the network went wrong.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_runtime.parity.hausdorff import hd95

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Decisions:
    """Masks (K, H, W) of an artefact against PyTorch's; pairs are (PyTorch's, the artefact's).

    pixels: K * H * W, all decisions.
    band: half the width, in logits, of the band around the threshold. near: pixels within it.
    flipped: pixels that were decided otherwise. outside: those of them that lie outside of the band.
    box: left, top, width, height in pixels around all that flipped; None where none did.
    dice: between the masks, 1 where both are empty.
    lesions, area_px: 8-connected components and pixels of all classes.
    hd95_px: of the class where it is worst (`tumorseg_runtime.parity.hausdorff`); None where just one mask
    of a class
        is empty, since there is no distance then.
    """

    height: int
    width: int
    pixels: int
    band: float
    near: int
    flipped: int
    outside: int
    box: tuple[int, int, int, int] | None
    dice: float
    lesions: tuple[int, int]
    area_px: tuple[int, int]
    hd95_px: float | None

    @property
    def where(self) -> str:
        """The place of what flipped, for people; empty where nothing did."""
        if self.box is None:
            return ""
        left, top, width, height = self.box
        return f"within {width}x{height} pixels at column {left}, row {top}"


def compare_masks(
    ours: BoolArray, theirs: BoolArray, distance: npt.NDArray[np.floating], band: float
) -> Decisions:
    """Masks bool (K, H, W) of PyTorch and an artefact; distance: |PyTorch's logit - threshold| of each."""
    flips = ours != theirs
    within = distance <= band
    distances = [0.0 if np.array_equal(a, b) else hd95(a, b) for a, b in zip(ours, theirs, strict=True)]
    known = [one for one in distances if one is not None]
    return Decisions(
        height=ours.shape[1],
        width=ours.shape[2],
        pixels=ours.size,
        band=float(band),
        near=int(np.count_nonzero(within)),
        flipped=int(np.count_nonzero(flips)),
        outside=int(np.count_nonzero(flips & ~within)),
        box=_box(flips.any(axis=0)),
        dice=mask_dice(ours, theirs),
        lesions=(_lesions(ours), _lesions(theirs)),
        area_px=(int(np.count_nonzero(ours)), int(np.count_nonzero(theirs))),
        hd95_px=max(known) if len(known) == len(distances) else None,
    )


def mask_dice(first: BoolArray, second: BoolArray) -> float:
    """Dice coefficient 2|A∩B| / (|A|+|B|) of two masks (Dice 1945); 1 where both are empty."""
    total = int(first.sum()) + int(second.sum())
    return 1.0 if total == 0 else 2 * int((first & second).sum()) / total


def _box(flips: BoolArray) -> tuple[int, int, int, int] | None:
    rows, columns = np.nonzero(flips)
    if not len(rows):
        return None
    left, top = int(columns.min()), int(rows.min())
    return left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1


def _lesions(masks: BoolArray) -> int:
    """Number of 8-connected components of all classes, as `postprocess.find_lesions` counts them."""
    return sum(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1 for mask in masks)
