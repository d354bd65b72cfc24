"""Figures over many images, with intervals: of all of them, and by organ, class and lesion size.

mean_*    mean over the images that have a tumour
pooled_*  over the pixels of all images together, those without a tumour included
hd95_*    mean over the images in which both masks have pixels; `missed` is the share of the images with a
          tumour in which nothing was marked, which have no distance
lesion_*  over the lesions of all images together (`tumorseg_train.evaluation.lesions`)
Of images without a tumour alone, which never count as Dice 1:
specificity         share of them in which nothing was marked
pixel_specificity   share of their pixels that were not marked
false_positive_px   pixels marked per image, at the size of the evaluation
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tumorseg_train.evaluation.metrics import NAN, ImageScore
from tumorseg_train.report.bootstrap import Estimate, FloatArray, Ratio, estimate

SIZES = ((0.01, "small (below 1 % of the image)"), (0.05, "medium (1 to 5 %)"), (1.01, "large (above 5 %)"))
HEALTHY_FIGURES = ("specificity", "pixel_specificity", "false_positive_px")


@dataclasses.dataclass(frozen=True)
class Stratum:
    """A part of the images, and its figures by name."""

    name: str
    images: int
    images_with_tumour: int
    groups: int
    figures: dict[str, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def ratios(scores: Sequence[ImageScore]) -> dict[str, Ratio]:
    """Each figure as a ratio of sums over the images."""

    def column(value: Callable[[ImageScore], float]) -> FloatArray:
        return np.array([value(score) for score in scores], np.float64)

    truth, predicted, both, pixels = (
        column(lambda s, name=name: getattr(s, name))  # type: ignore[misc]
        for name in ("truth_px", "predicted_px", "both_px", "pixels")
    )
    true_lesions, marked_lesions, matched = (
        column(lambda s, name=name: getattr(s, name))  # type: ignore[misc]
        for name in ("truth_lesions", "predicted_lesions", "matched_lesions")
    )
    sick, well = (truth > 0).astype(np.float64), (truth == 0).astype(np.float64)
    empty = (predicted == 0).astype(np.float64)

    def mean(name: str) -> Ratio:
        values = column(lambda s: getattr(s, name))
        known = np.isfinite(values) & (truth > 0)
        return Ratio(np.where(known, values, 0), known.astype(np.float64))

    right = pixels - truth - predicted + 2 * both
    return {
        **{f"mean_{name}": mean(name) for name in ("dice", "iou", "precision", "recall", "accuracy")},
        "pooled_f1": Ratio(2 * both, truth + predicted),
        "pooled_iou": Ratio(both, truth + predicted - both),
        "pooled_precision": Ratio(both, predicted),
        "pooled_recall": Ratio(both, truth),
        "pooled_accuracy": Ratio(right, pixels),
        "hd95_px": mean("hd95_px"),
        "hd95_mm": mean("hd95_mm"),
        "missed": Ratio(sick * empty, sick),
        "lesion_f1": Ratio(2 * matched, true_lesions + marked_lesions),
        "lesion_precision": Ratio(matched, marked_lesions),
        "lesion_recall": Ratio(matched, true_lesions),
        "specificity": Ratio(well * empty, well),
        "pixel_specificity": Ratio(well * (pixels - predicted), well * pixels),
        "false_positive_px": Ratio(well * predicted, well),
    }


def stratum(
    name: str, scores: Sequence[ImageScore], groups: Sequence[str], weights: FloatArray, chosen: Sequence[int]
) -> Stratum:
    """Figures of the `chosen` images (indices). groups, weights: of all images (`bootstrap.draw_weights`).

    Where none of them has a tumour, only the figures of images without one are defined.
    """
    mine = [scores[i] for i in chosen]
    my_groups = [groups[i] for i in chosen]
    my_weights = weights[:, list(chosen)]
    sick = sum(score.truth_px > 0 for score in mine)
    figures = {
        key: estimate(ratio, my_groups, my_weights)
        if sick or key in HEALTHY_FIGURES
        else Estimate(NAN, NAN, NAN)
        for key, ratio in ratios(mine).items()
    }
    return Stratum(name, len(mine), sick, len(set(my_groups)), figures)


def size_class(score: ImageScore) -> str:
    """The class of a tumour by its share of the image's pixels; 'no tumour' for none."""
    if not score.truth_px:
        return "no tumour"
    return next(name for limit, name in SIZES if score.truth_px / score.pixels < limit)
