"""Figures of merit of one image's mask against the ground truth, and of what must be beaten.

With T the true pixels of tumour, P the predicted ones and N all pixels of an image:

    Dice       2|P∩T| / (|P|+|T|)      Dice 1945; the F1 of pixels
    IoU        |P∩T| / |P∪T|           Jaccard 1912
    precision  |P∩T| / |P|             0 where nothing is predicted though there is a tumour
    recall     |P∩T| / |T|
    accuracy   (N - |P\\T| - |T\\P|) / N
    HD95       `hausdorff95`
    lesions    `tumorseg_train.evaluation.lesions`

Images without a tumour have none of these but accuracy: a mean Dice is over images with one, and the others
are judged by what was wrongly marked. Sums and intervals over many images:
`tumorseg_train.evaluation.summary`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt  # type: ignore[import-untyped]

from tumorseg_runtime.parity.mask_diff import border
from tumorseg_train.evaluation.lesions import match_lesions

BoolArray = npt.NDArray[np.bool_]
NAN = float("nan")

PERCENTILE = 95


@dataclasses.dataclass(frozen=True)
class ImageScore:
    """One image: pixels that are tumour in truth, in the prediction, and in both, of `pixels` in all.

    truth_lesions, predicted_lesions, matched_lesions: how many, as `match_lesions` counts them.
    hd95_px, hd95_mm: 95th percentile of the surface distance in pixels and in mm; NaN where one of the masks
    is empty, mm also where the distance between pixels is not known.
    """

    image: str
    truth_px: int
    predicted_px: int
    both_px: int
    pixels: int
    truth_lesions: int
    predicted_lesions: int
    matched_lesions: int
    hd95_px: float
    hd95_mm: float

    @classmethod
    def of(
        cls,
        image: str,
        predicted: BoolArray,
        truth: BoolArray,
        spacing: tuple[float, float] | None = None,
    ) -> ImageScore:
        """Score bool masks (H, W) of equal shape. spacing: mm from row to row and from column to column."""
        lesions = match_lesions(predicted, truth)
        return cls(
            image,
            int(truth.sum()),
            int(predicted.sum()),
            int((predicted & truth).sum()),
            truth.size,
            lesions.truth,
            lesions.predicted,
            lesions.matched,
            hausdorff95(predicted, truth),
            NAN if spacing is None else hausdorff95(predicted, truth, spacing),
        )

    @property
    def dice(self) -> float:
        """2|P∩T| / (|P|+|T|), NaN where the image has no tumour."""
        return 2 * self.both_px / (self.truth_px + self.predicted_px) if self.truth_px else NAN

    @property
    def iou(self) -> float:
        """|P∩T| / |P∪T|, NaN where the image has no tumour."""
        return self.both_px / (self.truth_px + self.predicted_px - self.both_px) if self.truth_px else NAN

    @property
    def precision(self) -> float:
        """|P∩T| / |P|, 0 for an empty prediction, NaN where the image has no tumour."""
        return self.both_px / max(self.predicted_px, 1) if self.truth_px else NAN

    @property
    def recall(self) -> float:
        """|P∩T| / |T|, NaN where the image has no tumour."""
        return self.both_px / self.truth_px if self.truth_px else NAN

    @property
    def accuracy(self) -> float:
        """Share of the pixels that are decided as in truth."""
        return (self.pixels - self.truth_px - self.predicted_px + 2 * self.both_px) / self.pixels


def mean_dice(scores: Iterable[ImageScore]) -> float:
    """Mean Dice over the images that have a tumour, NaN where none has."""
    dice = [score.dice for score in scores if score.truth_px]
    return float(np.mean(dice)) if dice else NAN


class ThresholdBaseline:
    """The best that one intensity threshold for all images can do: what a network must beat.

    Tries every threshold, tumour above it and below it, on the very images that it is judged on: an upper
    bound for such a method.
    """

    def __init__(self) -> None:
        self._dice = {"above": np.zeros(256), "below": np.zeros(256)}
        self._count = 0

    def add(self, image: npt.NDArray[np.uint8], truth: BoolArray) -> None:
        """Take a uint8 image (H, W), or (H, W, 3) RGB by its gray value; one without a tumour is skipped."""
        if not truth.any():
            return
        gray = image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
        inside = np.bincount(gray[truth], minlength=256)
        everywhere = np.bincount(gray.ravel(), minlength=256)
        for side, order in (("above", slice(None, None, -1)), ("below", slice(None))):
            both, predicted = np.cumsum(inside[order]), np.cumsum(everywhere[order])
            self._dice[side] += (2 * both / (predicted + inside.sum()))[order]
        self._count += 1

    def best(self) -> dict[str, float | int | str]:
        """The largest mean Dice, with its threshold and side; NaN before any image with a tumour."""
        if not self._count:
            return {"mean_dice": NAN, "threshold": 0, "tumour": "above"}
        side, dice = max(self._dice.items(), key=lambda pair: float(pair[1].max()))
        return {"mean_dice": float(dice.max()) / self._count, "threshold": int(dice.argmax()), "tumour": side}


def hausdorff95(predicted: BoolArray, truth: BoolArray, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """HD95 of bool masks (H, W) in pixels, or in the unit of `spacing` (row to row, column to column).

        h(A, B) = 95th percentile over a in ∂A of min over b in ∂B of |a - b|
        HD95    = max(h(P, T), h(T, P))

    ∂A: pixels of A with a 4-neighbour outside A; beyond the image is outside. The percentile is interpolated
    linearly. This is the 95 % Hausdorff distance of Metrics Reloaded (Maier-Hein et al. 2024); the distance
    itself is Hausdorff's (Huttenlocher et al. 1993). Libraries that take one percentile over both directions
    together give smaller numbers. The runtime measures the same in pixels without scipy
    (`tumorseg_runtime.parity.mask_diff`); here pixels may be oblong, as those of an image that was resized to
    a square are. NaN where a mask is empty: there is no border to measure from.
    """
    if not (predicted.any() and truth.any()):
        return float("nan")
    left, top, width, height = cv2.boundingRect((predicted | truth).astype(np.uint8))
    window = (slice(top, top + height), slice(left, left + width))  # it holds both borders whole
    first, second = (border(mask[window]) for mask in (predicted, truth))
    return max(_directed(first, second, spacing), _directed(second, first, spacing))


def _directed(origin: BoolArray, target: BoolArray, spacing: tuple[float, float]) -> float:
    """95th percentile of the distances from the pixels of `origin` to the nearest pixel of `target`."""
    distance = distance_transform_edt(~target, sampling=spacing)
    return float(np.percentile(distance[origin], PERCENTILE))
