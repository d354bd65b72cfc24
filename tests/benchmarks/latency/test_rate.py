"""Frames at a fixed rate, on a clock and a stream that are simulated to the microsecond."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tumorseg_benchmarks.latency.rate import MAX_PENDING, RateRun, highest_rate, read_sensors, run_rate
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.inference.stream import StreamResult


class Simulation:
    """One server that takes `service` seconds a frame; of more than MAX_PENDING that wait the oldest goes."""

    def __init__(self, service: float) -> None:
        self.now, self.service = 0.0, service

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def stream(self, frames: Iterable[Path]) -> Iterator[StreamResult]:
        free, waiting, done = 0.0, list[tuple[int, float]](), list[tuple[int, float, float]]()

        def serve(until: float) -> None:
            nonlocal free
            while waiting and max(free, waiting[0][1]) <= until:
                index, arrived = waiting.pop(0)
                start = max(free, arrived)
                free = start + self.service
                done.append((index, start - arrived, free - arrived))

        for index, _ in enumerate(frames):
            serve(self.now)
            waiting.append((index, self.now))
            if len(waiting) > MAX_PENDING:
                waiting.pop(0)
        serve(float("inf"))
        last = -1
        for index, pending, total in done:
            error = InputError("bad") if index == 3 else None
            yield StreamResult(
                index, "a", None, error, index - last - 1, {"pending": pending, "total": total}
            )
            last = index


def run(rate: float, service: float, seconds: float = 10.0) -> RateRun:
    sim = Simulation(service)
    return run_rate(
        sim.stream, [Path("a"), Path("b")], rate, seconds, clock=lambda: sim.now, pause=sim.pause,
        sensors=lambda: {"zone °C": 40.0},
    )  # fmt: skip


def test_a_rate_that_holds_drops_nothing() -> None:
    found = run(20, 0.01)
    assert (found.frames, found.judged, found.failed, found.dropped) == (200, 199, 1, 0)
    assert found.delay_ms["p50"] == pytest.approx(10)
    assert found.delay_ms["p90"] == pytest.approx(10)
    assert found.delay_ms["p99"] is None, "200 frames do not carry it"
    assert found.delay_ms["p99_9"] is None
    assert found.jitter_ms["max"] == pytest.approx(0, abs=1e-6)
    assert found.waiting["max"] == found.under_way["max"] == 0
    assert found.sensors == {"zone °C": (40.0, 40.0)}
    assert not found.held, "one frame failed"


def test_a_rate_that_is_too_high_drops_and_every_frame_is_counted_once() -> None:
    found = run(20, 0.1)
    assert found.frames == found.judged + found.failed + found.dropped
    assert found.dropped == pytest.approx(100, abs=3)  # 10 of 20 a second are served
    assert found.waiting["max"] >= 1
    assert found.under_way["max"] >= found.waiting["max"]
    assert not found.held


def test_percentiles_come_with_the_count() -> None:
    assert run(100, 0.001, 10).delay_ms["p99"] is not None
    assert run(1000, 0.0001, 10).delay_ms["p99_9"] is not None


def test_the_highest_rate_is_bracketed() -> None:
    best, failed = highest_rate(lambda rate: rate <= 12.3, 40.0)
    assert failed is not None
    assert best <= 12.3 < failed
    assert failed - best == pytest.approx(40 / 64)
    best, failed = highest_rate(lambda rate: rate <= 12.3, 1.0)
    assert failed is not None
    assert 12.0 <= best <= 12.3 < failed
    assert highest_rate(lambda rate: True, 1.0) == (16.0, None)
    assert highest_rate(lambda rate: False, 40.0)[0] == 0.0


def test_too_few_frames_are_one_line() -> None:
    with pytest.raises(InputError, match="are 1, expected 2 or more"):
        run(1, 0.1, 1)


def test_sensors_are_what_the_kernel_gives(tmp_path: Path) -> None:
    zone, meter = tmp_path / "sys/class/thermal/thermal_zone0", tmp_path / "sys/class/hwmon/hwmon1"
    for folder in (zone, meter):
        folder.mkdir(parents=True)
    (zone / "temp").write_text("45500\n")
    (meter / "power1_input").write_text("12500000\n")
    (meter / "power2_input").write_text("\n")  # a meter that gives nothing
    assert read_sensors(tmp_path) == {"thermal_zone0 °C": 45.5, "hwmon1 power1 W": 12.5}
    assert read_sensors(tmp_path / "absent") == {}
