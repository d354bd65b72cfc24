"""What a handful of paired ratios can and cannot say: an interval, a verdict, a trend, a tail.

A busy machine disturbs calls in bursts, so neighbouring blocks are not independent: the bootstrap draws runs
of neighbouring blocks. `python -m tumorseg_benchmarks.runtime_checks.validation` shows how often the
verdicts are right.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
RESAMPLES = 2000
# Two openings of one file differ for good, by where their memory lies: 0.3 % (standard deviation, measured
# by the validation). A ratio nearer to 1 is called no difference, however narrow its interval.
SAME = 0.003
DRIFT_LEVEL = 0.01  # of the test for a trend
NORMAL = NormalDist()
FASTER, SLOWER, SAME_SPEED = "faster", "slower", "no difference"


@dataclasses.dataclass(frozen=True)
class SpeedUp:
    """How many times faster than the reference: the median of the ratios within the blocks.

    low, high: 95 % interval of that median. p25, p75, min, max: of the ratios themselves. blocks: how many.
    trend: trend of the ratios over the blocks.
    """

    median: float
    low: float
    high: float
    p25: float
    p75: float
    min: float
    max: float
    blocks: int
    trend: Trend

    @classmethod
    def of(cls, ratios: Sequence[float]) -> SpeedUp:
        """From the ratios reference / variant, in the order of the blocks."""
        logs = np.log(np.asarray(ratios, np.float64))
        low, high = (math.exp(bound) for bound in median_interval(logs))
        least, p25, median, p75, most = (float(q) for q in np.exp(np.percentile(logs, (0, 25, 50, 75, 100))))
        return cls(median, low, high, p25, p75, least, most, len(logs), Trend.of(ratios))

    @property
    def verdict(self) -> str:
        """'faster' or 'slower' where the whole interval says so by more than `SAME`, else 'no difference'."""
        if math.log(self.low) > SAME:
            return FASTER
        return SLOWER if math.log(self.high) < -SAME else SAME_SPEED

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**dataclasses.asdict(self), "verdict": self.verdict}


@dataclasses.dataclass(frozen=True)
class Trend:
    """Trend of values over time, by Mann and Kendall's test.

    p: how probable at least such a trend is where there is none. percent: change from first to last, by
    Theil and Sen's slope, in per cent of the median.
    """

    p: float
    percent: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Trend:
        """At least two values, in order of time."""
        data = np.asarray(values, np.float64)
        count = len(data)
        first, second = np.triu_indices(count, 1)
        steps = data[second] - data[first]
        score = float(np.sign(steps).sum())
        _, ties = np.unique(data, return_counts=True)
        variance = (
            count * (count - 1) * (2 * count + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())
        ) / 18
        z = (abs(score) - 1) / math.sqrt(variance) if variance > 0 and score else 0.0
        slope = float(np.median(steps / (second - first)))
        percent = 100 * slope * (count - 1) / float(np.median(data))
        return cls(2 * (1 - NORMAL.cdf(max(z, 0.0))), percent)

    @property
    def found(self) -> bool:
        """True where the trend is no chance at the level of 1 %."""
        return self.p < DRIFT_LEVEL


def median_interval(values: npt.NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """95 % interval of the median of values in order of time, by a bootstrap of moving blocks.

    Runs of n / 20 neighbours are drawn: longer runs of few values would hold the truth too seldom.
    Percentiles are taken farther out, as Student's t is wider than the normal distribution.
    """
    count = len(values)
    run = max(1, count // 20)
    random = np.random.default_rng(seed)
    starts = random.integers(0, count, (RESAMPLES, -(-count // run)))
    chosen = (starts[:, :, None] + np.arange(run)) % count  # (resamples, runs, run)
    medians = np.median(values[chosen.reshape(RESAMPLES, -1)[:, :count]], axis=1)
    tail = NORMAL.cdf(-math.sqrt(count / (count - 1)) * _student(count - 1))
    low, high = np.quantile(medians, (tail, 1 - tail))
    return float(low), float(high)


def _student(freedom: int) -> float:
    """97.5 % quantile of Student's t, by Cornish and Fisher's expansion: within 0.5 % from 7 on."""
    z = NORMAL.inv_cdf((1 + CONFIDENCE) / 2)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def fewest_samples(share: float) -> int:
    """From how many samples a percentile is given: MLPerf's rule of early stopping with one sample to spare.

    At least two samples then lie above the true percentile with 99 % confidence: 64 for 0.9, 662 for 0.99.
    """
    count = 2
    while share**count + count * (1 - share) * share ** (count - 1) > 0.01:
        count += 1
    return count


def tail(values: Sequence[float], share: float) -> float | None:
    """The percentile of the samples, None where there are too few for it."""
    if len(values) < fewest_samples(share):
        return None
    return float(np.quantile(values, share))
