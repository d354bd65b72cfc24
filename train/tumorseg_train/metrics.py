"""Figures of merit of masks against the ground truth. numpy only.

Dice = 2|A∩B| / (|A|+|B|) (Dice 1945). Images without a tumour have no Dice: a mean Dice is over images
with one, and the others are told by how many of them stayed empty.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class ImageScore:
    """One image: pixels that are tumour in truth, in the prediction, and in both."""

    image: str
    truth_px: int
    predicted_px: int
    both_px: int

    @classmethod
    def of(cls, image: str, predicted: BoolArray, truth: BoolArray) -> ImageScore:
        """Score bool masks of equal shape."""
        return cls(image, int(truth.sum()), int(predicted.sum()), int((predicted & truth).sum()))

    @property
    def dice(self) -> float:
        """2|A∩B| / (|A|+|B|), NaN where the image has no tumour."""
        return 2 * self.both_px / (self.truth_px + self.predicted_px) if self.truth_px else float("nan")


def mean_dice(scores: Iterable[ImageScore]) -> float:
    """Mean Dice over the images that have a tumour, NaN where none has."""
    dice = [score.dice for score in scores if score.truth_px]
    return float(np.mean(dice)) if dice else float("nan")


def summary(scores: Sequence[ImageScore]) -> dict[str, float | int]:
    """Mean Dice, pixel F1 pooled over all images, and how many images without a tumour stayed empty."""
    truth, predicted, both = (
        sum(getattr(score, name) for score in scores) for name in ("truth_px", "predicted_px", "both_px")
    )
    healthy = [score for score in scores if not score.truth_px]
    return {
        "images": len(scores),
        "images_with_tumour": len(scores) - len(healthy),
        "mean_dice": mean_dice(scores),
        "pooled_f1": 2 * both / (truth + predicted) if truth + predicted else float("nan"),
        "healthy_left_empty": sum(not score.predicted_px for score in healthy),
    }


def threshold_baseline(
    images: Sequence[npt.NDArray[np.uint8]], truths: Sequence[BoolArray]
) -> dict[str, float | int | str]:
    """The best that one intensity threshold for all images can do: what a network must beat.

    images: uint8 (H, W) or (H, W, 3) RGB, judged by their gray value; truths: bool (H, W).
    Tries every threshold, tumour above it and below it, on the very images that it is judged on, and
    returns the largest mean Dice with its threshold: an upper bound for such a method.
    """
    above = np.zeros(256)
    below = np.zeros(256)
    count = 0
    for image, truth in zip(images, truths, strict=True):
        if not truth.any():
            continue
        gray = image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
        inside = np.bincount(gray[truth], minlength=256)
        everywhere = np.bincount(gray.ravel(), minlength=256)
        for dice, order in ((above, slice(None, None, -1)), (below, slice(None))):
            both, predicted = np.cumsum(inside[order]), np.cumsum(everywhere[order])
            dice += (2 * both / (predicted + inside.sum()))[order]
        count += 1
    if not count:
        return {"mean_dice": float("nan"), "threshold": 0, "tumour": "above"}
    side, dice = max((("above", above), ("below", below)), key=lambda pair: float(pair[1].max()))
    return {"mean_dice": float(dice.max()) / count, "threshold": int(dice.argmax()), "tumour": side}
