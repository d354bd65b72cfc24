"""Intervals by resampling groups: images of one patient or scene are no independent witnesses.

A draw takes as many groups as there are, with replacement, and all images of each (cluster bootstrap:
Davison & Hinkley 1997, 3.8; Field & Welsh 2007). The interval lies between the 2.5th and the 97.5th
percentile of the figure over all draws. The same seed and groups give the same draws, so that two networks
on the same images are compared draw by draw (paired).

Every figure is a ratio of two sums over images: a mean has ones below, a pooled figure pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
DRAWS = 2000
LEVEL = 0.95
MIN_GROUPS = 10  # from fewer the interval is too narrow to be shown


@dataclasses.dataclass(frozen=True, eq=False)
class Ratio:
    """sum(top) / sum(bottom) over images; both float64 (N,). NaN where the bottom sums to 0."""

    top: FloatArray
    bottom: FloatArray

    def value(self) -> float:
        """The figure over all images."""
        return float(self.top.sum() / self.bottom.sum()) if self.bottom.sum() else float("nan")

    def draws(self, weights: FloatArray) -> FloatArray:
        """The figure in each draw, float64 (B,): weights (B, N) tell how often a draw holds an image."""
        top, bottom = weights @ self.top, weights @ self.bottom
        return np.asarray(np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom != 0))


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure with its interval. low, high: NaN where there are too few groups to draw from."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def draw_weights(groups: Sequence[str], draws: int = DRAWS, seed: int = 0) -> FloatArray:
    """How often each draw holds each image: float64 (draws, N). groups: the group's name of each image."""
    names, member = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    if not len(names):
        return np.zeros((draws, 0))
    count = len(names)
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    return np.asarray(times[:, member], np.float64)


def estimate(ratio: Ratio, groups: Sequence[str], weights: FloatArray, least: int | None = None) -> Estimate:
    """The figure, and its interval over the draws in which it is defined; least: as of `interval`."""
    counted = {group for group, bottom in zip(groups, ratio.bottom, strict=True) if bottom}
    return Estimate(ratio.value(), *interval(ratio.draws(weights), len(counted), least))


def interval(draws: FloatArray, groups: int, least: int | None = None) -> tuple[float, float]:
    """The percentiles that hold 95 % of the draws; draws that are NaN do not count.

    NaN if none is left, or where fewer than `least` groups (None: MIN_GROUPS) were drawn from.
    """
    defined = draws[np.isfinite(draws)]
    if not len(defined) or groups < (MIN_GROUPS if least is None else least):
        return float("nan"), float("nan")
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(defined, (tail, 100 - tail))
    return float(low), float(high)
