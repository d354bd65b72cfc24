"""The contract's temperature, fitted on validation images (Guo et al. 2017).

Logits are divided by one number T where probabilities are reported. T is the one with the least negative log
likelihood over all pixels of the part; its slope in 1/T grows with 1/T, so that bisection finds it. What an
image needs for this, and for its ECE and Brier score at any T, is a histogram of its logits by truth.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import LEAST_TEMPERATURE, MOST_TEMPERATURE, SIGMOID, Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.progress import Tell, silent, told
from tumorseg_train.data.split import Manifest
from tumorseg_train.evaluation.calibration import BINS, Bins, around, calibration
from tumorseg_train.evaluation.predictions import Infer, answer, group_of
from tumorseg_train.report.bootstrap import DRAWS, draw_weights

STEP, SPAN = 1 / 128, 32  # of the histograms, in logits; what lies beyond the span counts at its end
CELLS = int(2 * SPAN / STEP)
CENTRES = np.asarray((np.arange(CELLS) + 0.5) * STEP - SPAN, np.float64)
Histogram = npt.NDArray[np.int64]  # (2, CELLS): pixels without and with a tumour, by logit


@dataclasses.dataclass(frozen=True, eq=False)
class PartLogits:
    """The logits of a part, by image: of all its pixels, and of those near a tumour where there is one
    (`evaluation.calibration.around`), each with the image's group."""

    everywhere: tuple[Histogram, ...]
    near: tuple[Histogram, ...]
    groups: tuple[str, ...]
    near_groups: tuple[str, ...]

    def figures(self, temperature: float, draws: int = DRAWS) -> dict[str, Any]:
        """ECE with its interval, Brier score and negative log likelihood (a pixel's mean), over 'all' pixels
        and 'near' the tumours, at a temperature; None where one is not defined."""
        found = {}
        for name, histograms, groups in (
            ("all", self.everywhere, self.groups), ("near", self.near, self.near_groups),
        ):  # fmt: skip
            bins = [_bins(histogram, temperature) for histogram in histograms]
            values = calibration(bins, draw_weights(groups, draws))
            loss = _loss(np.sum(histograms, axis=0), temperature) if histograms else float("nan")
            ece = {figure: _known(value) for figure, value in values["ece"].items()}
            found[name] = {"ece": ece, "brier": _known(values["brier"]), "loss": _known(loss)}
        return found


def collect(
    infer: Infer, manifest: Manifest, contract: Contract, part: str, tell: Tell = silent
) -> PartLogits:
    """Run the network over a part; arguments as of `predictions.score_part`. Raises InputError for the rule
    softmax."""
    if contract.rule != SIGMOID:
        raise InputError(f"rule is {contract.rule}, expected {SIGMOID}: a temperature is fitted for it alone")
    items = manifest.part(part)
    everywhere, near, near_groups = [], [], []
    for item in told(items, tell):
        found = answer(infer, contract, manifest, item)
        everywhere.append(_histogram(found.logits.max(axis=0), found.truth))
        if found.truth.any():
            box = around(found.truth)
            near.append(_histogram(found.logits.max(axis=0)[box], found.truth[box]))
            near_groups.append(group_of(item))
    return PartLogits(tuple(everywhere), tuple(near), tuple(map(group_of, items)), tuple(near_groups))


def fit_temperature(part: PartLogits) -> float:
    """The best temperature, to four digits; raises InputError where no pixel, or every one, has a tumour."""
    counts = np.sum(part.everywhere, axis=0)
    if not counts.any(axis=1).all():
        raise InputError("no pixel with or none without a tumour, expected both: a temperature needs them")
    low, high = 1 / MOST_TEMPERATURE, 1 / LEAST_TEMPERATURE  # of the slope 1/T
    for _ in range(60):
        middle = (low + high) / 2
        excess = counts.sum(axis=0) * _sigmoid(middle * CENTRES) - counts[1]
        low, high = (low, middle) if float((CENTRES * excess).sum()) > 0 else (middle, high)
    return float(f"{1 / low:.4g}")


def _histogram(logits: npt.NDArray[np.float32], truth: npt.NDArray[np.bool_]) -> Histogram:
    cells = np.clip(np.floor((logits.ravel() + SPAN) / STEP), 0, CELLS - 1).astype(np.int64)
    return np.bincount(cells + CELLS * truth.ravel(), minlength=2 * CELLS).reshape(2, CELLS)


def _bins(histogram: Histogram, temperature: float) -> Bins:
    p = _sigmoid(CENTRES / temperature)
    index = np.minimum((p * BINS).astype(np.intp), BINS - 1)
    pixels, tumour = histogram.sum(axis=0), histogram[1]
    count, predicted, observed = (
        np.bincount(index, weights, minlength=BINS).astype(np.float64)
        for weights in (pixels, p * pixels, tumour)
    )
    squares = float((histogram[0] * p**2 + tumour * (1 - p) ** 2).sum())
    return Bins(count, predicted, observed, squares)


def _loss(histogram: Histogram, temperature: float) -> float:
    scaled = CENTRES / temperature
    each = np.stack([np.logaddexp(0, scaled), np.logaddexp(0, -scaled)])
    return float((histogram * each).sum() / histogram.sum())


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _sigmoid(logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -700, 700))))
