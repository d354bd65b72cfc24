"""Latency that survives scrutiny: interleaved rounds, paired ratios, nothing clipped.

Every round is a block in which each variant has its turn, on the same images, in an order drawn anew; so a
slow minute of the machine falls on all of them, and the speed-up is the median of the ratios within the
rounds and not the ratio of two medians from different minutes. A turn is one call, or several where calls
are short: its quickest call stands for it in the ratio, since a neighbour's burst makes calls slower and
never quicker. The distributions are of all calls. This module knows neither networks nor images.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from tumorseg_benchmarks.latency.intervals import SpeedUp, tail
from tumorseg_runtime.core.errors import InputError

MIN_ROUNDS = 8  # quartiles of fewer samples say nothing
PRIME_BELOW_S = 0.25  # calls shorter than this feel what ran before them, see `measure`
SHORT_CALLS = 3  # in a turn, where calls are that short
Call = Callable[[int], dict[str, int]]  # number of the round -> nanoseconds by stage
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class TimingPlan:
    """How to measure.

    rounds: turns of each variant. seed: of the order within the rounds.
    settle_s: idle seconds before each timed call, in which the last variant's threads stop spinning.
    budget_s: no further round begins after so many seconds, but never fewer than eight are run.
    """

    rounds: int = MIN_ROUNDS
    seed: int = 0
    settle_s: float = 0.05
    budget_s: float | None = None

    def __post_init__(self) -> None:
        if self.rounds < MIN_ROUNDS:
            raise InputError(
                f"rounds is {self.rounds}, expected at least {MIN_ROUNDS}: fewer carry no quartiles"
            )


@dataclasses.dataclass(frozen=True)
class Sample:
    """One timed call: which round, at which place in it (0 first), and milliseconds by stage."""

    round: int
    position: int
    ms: dict[str, float]

    @property
    def total_ms(self) -> float:
        """End to end: the sum of all stages; the parts of 'infer' are in it already."""
        return sum(ms for stage, ms in self.ms.items() if stage not in ("upload", "compute", "download"))

    def of(self, stage: str) -> float:
        """Milliseconds of a stage, or of all for 'end_to_end'."""
        return self.total_ms if stage == "end_to_end" else self.ms[stage]


@dataclasses.dataclass(frozen=True)
class LatencyStats:
    """Median, quartiles and extremes of all samples; p90 and p99 where there are enough, else None."""

    median: float
    p25: float
    p75: float
    min: float
    max: float
    samples: int
    p90: float | None = None
    p99: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> LatencyStats:
        """Raises InputError for fewer than eight values."""
        if len(values) < MIN_ROUNDS:
            raise InputError(f"got {len(values)} samples, expected at least {MIN_ROUNDS}: run more rounds")
        low, p25, median, p75, high = (float(q) for q in np.percentile(values, (0, 25, 50, 75, 100)))
        return cls(median, p25, p75, low, high, len(values), tail(values, 0.9), tail(values, 0.99))


def orders(names: Sequence[T], rounds: int, seed: int) -> list[list[T]]:
    """The order of the variants in each round: random, and the same for the same seed."""
    generator = random.Random(seed)
    return [generator.sample(list(names), len(names)) for _ in range(rounds)]


def measure(
    calls: Mapping[str, Call],
    plan: TimingPlan,
    *,
    prime: bool,
    calls_per_turn: int = 1,
    progress: Callable[[int, dict[str, Sample]], None] = lambda number, samples: None,
    pause: Callable[[float], None] = time.sleep,
    seconds: Callable[[], float] = time.monotonic,
) -> dict[str, list[Sample]]:
    """Run the rounds; returns the samples of each variant, in the order of the rounds.

    prime: before each turn run the same variant once untimed, so that a call of a few milliseconds
    is not charged with the caches and clocks that its predecessor left; pointless for calls of a second.
    calls_per_turn: timed calls of a variant in a row.
    progress: told each round's number and samples when it is over.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in calls}
    start = seconds()
    for number, order in enumerate(orders(list(calls), plan.rounds, plan.seed)):
        if plan.budget_s is not None and number >= MIN_ROUNDS and seconds() - start > plan.budget_s:
            break
        for position, name in enumerate(order):
            pause(plan.settle_s)
            if prime:
                calls[name](number)
            for _ in range(calls_per_turn):
                ns = calls[name](number)
                ms = {stage: t / 1e6 for stage, t in ns.items()}
                samples[name].append(Sample(number, position, ms))
        progress(number, {name: taken[-1] for name, taken in samples.items()})
    return samples


def turns(samples: Sequence[Sample], stage: str = "infer") -> list[float]:
    """Milliseconds of each round's quickest call, in the order of the rounds."""
    quickest: dict[int, float] = {}
    for sample in samples:
        quickest[sample.round] = min(sample.of(stage), quickest.get(sample.round, math.inf))
    return list(quickest.values())


def speed_up(reference: Sequence[Sample], variant: Sequence[Sample], stage: str = "infer") -> SpeedUp:
    """How many times faster than the reference, round by round: above 1 the variant is faster."""
    pairs = zip(turns(reference, stage), turns(variant, stage), strict=True)
    return SpeedUp.of([theirs / ours for theirs, ours in pairs])
