"""Frames at a fixed rate through `Segmenter.stream`, from decode to mask: delays, jitter, drops, queue.

The source yields a frame each 1 / rate seconds, whether or not the last one is judged; the stream drops the
frame that waits longest where more than `MAX_PENDING` wait, as for a live camera. Every frame counts.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tumorseg_benchmarks.latency.intervals import tail
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.inference.stream import StreamResult

MAX_PENDING = 2
DOUBLINGS = 4
STEPS = 6  # of the bisection: 1/64 of its first interval
SENSOR_S = 1.0  # between two readings
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999}
Stream = Callable[[Iterable[Path]], Iterable[StreamResult]]


@dataclasses.dataclass(frozen=True)
class RateRun:
    """What came of frames at one rate.

    rate: frames per second asked for. frames: sent; each is in exactly one of judged, failed and dropped.
    delay_ms: from a frame's arrival to its masks; a percentile that the count does not carry is None.
    jitter_ms: how far the time between two results in a row is from that between the two arrivals.
    late_ms: the most that the source itself was behind its clock; beyond 1 / rate the rate was not kept.
    waiting: frames that waited to be decoded when one arrived. under_way: frames not yet judged then.
    sensors: lowest and highest reading of each, by its name; empty where none can be read here.
    """

    rate: float
    frames: int
    judged: int
    failed: int
    dropped: int
    delay_ms: dict[str, float | None]
    jitter_ms: dict[str, float | None]
    late_ms: float
    waiting: dict[str, float]
    under_way: dict[str, float]
    sensors: dict[str, tuple[float, float]]

    @property
    def held(self) -> bool:
        """True where every frame was judged and the source kept its clock."""
        return self.judged == self.frames and self.late_ms < 1000 / self.rate


def run_rate(
    stream: Stream,
    paths: Sequence[Path],
    rate: float,
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
    sensors: Callable[[], dict[str, float]] = dict,
) -> RateRun:
    """Send the paths in turn, `rate` of them a second. stream: `Segmenter.stream`, dropping the oldest.

    Raises InputError for fewer than two frames.
    """
    count = round(rate * seconds)
    if count < 2:
        raise InputError(f"{rate:g} frames/s for {seconds:g} s are {count}, expected 2 or more: raise either")
    arrivals: list[float] = []
    late = 0.0

    def source() -> Iterator[Path]:
        nonlocal late
        start = clock()
        for number in range(count):
            due = start + number / rate
            while (left := due - clock()) > 0:
                pause(left)
            arrivals.append(clock())
            late = max(late, arrivals[-1] - due)
            yield paths[number % len(paths)]

    done: list[tuple[int, float, float]] = []  # index, seconds that it waited, seconds in all
    failed, readings, read = 0, dict[str, list[float]](), -SENSOR_S
    for result in stream(source()):
        if result.error is not None:
            failed += 1
        else:
            done.append((result.index, result.seconds["pending"], result.seconds["total"]))
        if clock() - read >= SENSOR_S:
            read = clock()
            for name, value in sensors().items():
                readings.setdefault(name, []).append(value)
    begun = np.array([arrivals[index] for index, _, _ in done])
    taken, left_at = (begun + np.array([one[place] for one in done]) for place in (1, 2))
    jitter = np.abs(np.diff(left_at) - np.diff(begun))
    return RateRun(
        rate,
        count,
        len(done),
        failed,
        count - len(done) - failed,
        percentiles([1000 * total for _, _, total in done]),
        percentiles(list(1000 * jitter)),
        1000 * late,
        depth(begun, taken),
        depth(begun, left_at),
        {name: (min(values), max(values)) for name, values in readings.items()},
    )


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """Those of `SHARES` that the number of values carries, and the largest; None for the others."""
    found: dict[str, float | None] = {name: tail(values, share) for name, share in SHARES.items()}
    return {**found, "max": max(values, default=None)}


def depth(begun: Any, ended: Any) -> dict[str, float]:
    """Mean and maximum of the frames before each, in order, that had not ended when it began.

    begun, ended: float64 (N,) in seconds, `begun` rising.
    """
    counts = [int(np.count_nonzero(ended[:place] > at)) for place, at in enumerate(begun)]
    return {"mean": float(np.mean(counts)) if counts else 0.0, "max": float(max(counts, default=0))}


def highest_rate(held: Callable[[float], bool], high: float) -> tuple[float, float | None]:
    """By doubling, then bisection: the highest rate that was held, and the lowest that was not.

    high: where to begin. 0.0 where no rate that was tried was held; None where all were, the last of them
    `high` * 2 ** DOUBLINGS.
    """
    best = 0.0
    for _ in range(DOUBLINGS + 1):
        if not held(high):
            break
        best, high = high, 2 * high
    else:
        return best, None
    low = best
    for _ in range(STEPS):
        middle = (low + high) / 2
        if held(middle):
            best = low = middle
        else:
            high = middle
    return best, high


def read_sensors(root: Path = Path("/")) -> dict[str, float]:
    """°C of thermal zones and watts of power meters, by name, from Linux's /sys; {} where there is none."""
    found = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        if (value := _number(zone / "temp")) is not None:
            found[f"{zone.name} °C"] = value / 1e3
    for meter in sorted((root / "sys/class/hwmon").glob("hwmon*/power*_input")):
        if (value := _number(meter)) is not None:
            found[f"{meter.parent.name} {meter.name.removesuffix('_input')} W"] = value / 1e6
    return found


def _number(file: Path) -> float | None:
    """The number in a file of /sys; None where the kernel does not give it."""
    try:
        return float(file.read_text())
    except (OSError, ValueError):
        return None
