"""One figure: a number with its spread, and the target that it is held against."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from tumorseg_benchmarks.latency.latency import Call, LatencyStats, Sample

STAGE = "call"  # the one stage of a call that is timed as a whole
Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Target:
    """A limit that a figure must keep: at most, or where `at_least` is set at least."""

    limit: float
    at_least: bool = False

    def __str__(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.limit:g}"

    def met(self, value: float) -> bool:
        """Both sides include the limit."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclasses.dataclass(frozen=True)
class Figure:
    """value: in `unit`, the median where there is a spread; None where it could not be measured.

    note: for people: what the number is made of, or why there is none.
    """

    name: str
    value: float | None
    unit: str
    stats: LatencyStats | None = None
    target: Target | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """'met', 'missed', 'not measured', or '' without a target."""
        if self.value is None:
            return "not measured"
        if self.target is None:
            return ""
        return "met" if self.target.met(self.value) else "missed"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**dataclasses.asdict(self), "verdict": self.verdict}


def timed(work: Callable[[int], object]) -> Call:
    """A call for `latency.measure` that takes the time of the whole of `work(number of the round)`."""

    def call(number: int) -> dict[str, int]:
        start = time.perf_counter_ns()
        work(number)
        return {STAGE: time.perf_counter_ns() - start}

    return call


def ratio(
    name: str, ours: Sequence[Sample], theirs: Sequence[Sample], target: Target | None = None, note: str = ""
) -> Figure:
    """Ours / theirs, paired by round: below 1 ours takes less."""
    pairs = zip(ours, theirs, strict=True)
    stats = LatencyStats.of([one.ms[STAGE] / other.ms[STAGE] for one, other in pairs])
    return Figure(name, stats.median, "ratio", stats, target, note)


def median_ms(samples: Sequence[Sample]) -> float:
    """Median of the whole calls, in milliseconds."""
    return LatencyStats.of([sample.ms[STAGE] for sample in samples]).median
