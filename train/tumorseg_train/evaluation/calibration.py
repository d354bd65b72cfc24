"""Does a probability of 0.7 mean a tumour in 70 % of the pixels? Reliability, ECE and Brier score.

Pixels are put into BINS equal steps of the predicted probability p of a tumour; y is 1 for a true pixel.

    reliability diagram   mean y over mean p, by bin         DeGroot & Fienberg 1983
    ECE                   Σ_b n_b/n · |mean y_b - mean p_b|   Naeini et al. 2015, Guo et al. 2017
    Brier score           mean (p - y)²                       Brier 1950

Most pixels are background that no network doubts, which makes the ECE over all pixels small for everybody.
So it is also given *near* the tumour: over the box around the true mask, twice as high and wide, of images
with one (after Mehrtash et al. 2020).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_train.report.bootstrap import FloatArray, interval

BoolArray = npt.NDArray[np.bool_]
BINS = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Bins:
    """Pixels of an image by their probability: how many, sum of p, sum of y, each float64 (BINS,); and the
    sum of (p - y)² over all of them."""

    count: FloatArray
    predicted: FloatArray
    observed: FloatArray
    squares: float

    @classmethod
    def of(cls, probabilities: npt.NDArray[np.float32], truth: BoolArray) -> Bins:
        """probabilities float32 and truth bool, of equal shapes."""
        p, y = probabilities.ravel().astype(np.float64), truth.ravel()
        index = np.minimum((p * BINS).astype(np.intp), BINS - 1)
        count, predicted, observed = (
            np.bincount(index, weights, minlength=BINS).astype(np.float64) for weights in (None, p, y)
        )
        return cls(count, predicted, observed, float(((p - y) ** 2).sum()))


def around(truth: BoolArray) -> tuple[slice, slice]:
    """Rows and columns of the box around a mask (H, W), twice as high and wide, inside the image."""
    left, top, width, height = cv2.boundingRect(truth.astype(np.uint8))
    rows = slice(max(top - height // 2, 0), top + height + height // 2)
    return rows, slice(max(left - width // 2, 0), left + width + width // 2)


def calibration(images: Sequence[Bins], weights: FloatArray) -> dict[str, Any]:
    """ECE with its interval, Brier score and the diagram's points over images, as plain values.

    weights: float64 (B, N), the draws of `bootstrap.draw_weights`. Figures of no pixel are NaN.
    """
    count, predicted, observed = (
        np.array([getattr(image, name) for image in images]).reshape(-1, BINS)  # (N, BINS)
        for name in ("count", "predicted", "observed")
    )
    pixels = count.sum()
    points = [
        {"pixels": int(n), "predicted": float(p / n), "observed": float(y / n)}
        for n, p, y in zip(count.sum(0), predicted.sum(0), observed.sum(0), strict=True)
        if n
    ]
    value = _ece(np.ones((1, len(images))), count, predicted, observed)[0]
    groups = len(np.unique(weights, axis=1).T)  # images of one group are drawn together
    low, high = interval(_ece(weights, count, predicted, observed), groups)
    return {
        "pixels": int(pixels),
        "ece": {"value": float(value), "low": low, "high": high},
        "brier": float(sum(image.squares for image in images) / pixels) if pixels else float("nan"),
        "points": points,
    }


def _ece(weights: FloatArray, count: FloatArray, predicted: FloatArray, observed: FloatArray) -> FloatArray:
    """ECE of each draw: weights (B, N), the rest (N, BINS) -> (B,)."""
    gaps = np.abs(weights @ observed - weights @ predicted).sum(axis=1)
    pixels = (weights @ count).sum(axis=1)
    return np.asarray(np.divide(gaps, pixels, out=np.full(len(gaps), np.nan), where=pixels != 0))
