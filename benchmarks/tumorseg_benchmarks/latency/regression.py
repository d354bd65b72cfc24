"""A saved baseline, and whether a new measurement is a regression beyond the measured noise.

A call is timed in turns with a yardstick that no change of this code touches, and what is kept is the ratio
of both: a machine that is slower today is so for both. The noise is measured, too: each call is timed in
several freshly opened sessions, whose spread says how far a ratio moves without any change.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np

from tumorseg_benchmarks.latency.latency import SHORT_CALLS, TimingPlan, measure, turns
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.files import make_folder, write_text
from tumorseg_runtime.core.records import Fields, Format, Range, to_json

_FORMAT = Format("baseline", "make one with --save-baseline", error=InputError)
_RATIO = Annotated[float, Range(-30, 30)]  # of e^30 to one is none that was measured
_FIELDS = Fields(facts=dict[str, str], timings=dict[str, tuple[_RATIO, ...]])
SESSIONS = 5
ROUNDS = 24
ERRORS = 4.0  # standard errors of the difference that count as a regression
LEAST = 0.03  # a slow-down below this share is never one
SIDE = 64  # of the yardstick's matrices


@dataclasses.dataclass(frozen=True)
class Timing:
    """Of one call: logarithm of its time over the yardstick's, one median for each session."""

    logs: tuple[float, ...]

    @property
    def middle(self) -> float:
        """Median over the sessions."""
        return statistics.median(self.logs)

    @property
    def error(self) -> float:
        """Standard error of the middle, from the spread of the sessions."""
        return 1.25 * statistics.stdev(self.logs) / math.sqrt(len(self.logs))  # 1.25: a median, not a mean


def yardstick() -> Callable[[], object]:
    """A product of two matrices on one thread, in integers, which numpy gives to no library."""
    a = np.random.default_rng(0).integers(0, 9, (SIDE, SIDE), np.int32)
    return lambda: a @ a


def time_call(open_call: Callable[[], Callable[[], object]], rounds: int = ROUNDS) -> Timing:
    """Time what `open_call` opens, anew for each session."""
    logs = []
    for seed in range(SESSIONS):
        calls = {"yardstick": _timed(yardstick()), "call": _timed(open_call())}
        plan = TimingPlan(rounds=rounds, seed=seed, settle_s=0)
        samples = measure(calls, plan, prime=True, calls_per_turn=SHORT_CALLS)
        pairs = zip(turns(samples["call"]), turns(samples["yardstick"]), strict=True)
        logs.append(statistics.median(math.log(ours / theirs) for ours, theirs in pairs))
    return Timing(tuple(logs))


def _timed(call: Callable[[], object]) -> Callable[[int], dict[str, int]]:
    def run(number: int) -> dict[str, int]:
        start = time.perf_counter_ns()
        call()
        return {"infer": time.perf_counter_ns() - start}

    return run


def regression(old: Timing, new: Timing) -> str | None:
    """None, or in one line how much slower the new one is."""
    slower = new.middle - old.middle
    noise = ERRORS * math.hypot(old.error, new.error)
    if slower <= max(noise, math.log1p(LEAST)):
        return None
    return (
        f"is {math.expm1(slower):.1%} slower than the baseline, expected at most "
        f"{math.expm1(max(noise, math.log1p(LEAST))):.1%} (the measured noise)"
    )


def write_baseline(path: Path, facts: dict[str, str], timings: dict[str, Timing]) -> None:
    """Write the timings; facts: what must be the same for a comparison, such as CPU and bundle."""
    make_folder(path.parent)
    values = {"facts": facts, "timings": {name: list(one.logs) for name, one in timings.items()}}
    write_text(path, to_json(values, indent=1))


def read_baseline(path: Path, facts: dict[str, str]) -> dict[str, Timing]:
    """Raises InputError for a file that is no baseline, or one of another machine or bundle."""
    values = _FORMAT.read(path, _FIELDS)
    got, timings = values["facts"], values["timings"]
    for name, expected in facts.items():
        if got.get(name) != expected:
            raise InputError(
                f"{path}: its {name} is {got.get(name)}, expected {expected}: "
                "make one here with --save-baseline"
            )
    for name, logs in timings.items():
        if len(logs) < 2:  # whose spread says nothing
            raise InputError(
                f"{path}: {name} has {len(logs)} sessions, expected at least 2: make one with --save-baseline"
            )
    return {name: Timing(logs) for name, logs in timings.items()}
