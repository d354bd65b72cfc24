"""Regressions against a saved baseline: found beyond the noise, and not within it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tumorseg_benchmarks.latency.latency import MIN_ROUNDS
from tumorseg_benchmarks.latency.regression import (
    Timing,
    read_baseline,
    regression,
    time_call,
    write_baseline,
    yardstick,
)
from tumorseg_runtime.core.errors import InputError

QUIET = Timing((0.0, 0.001, -0.001, 0.002, -0.002))
NOISY = Timing((0.0, 0.2, -0.2, 0.1, -0.1))


def shifted(timing: Timing, by: float) -> Timing:
    return Timing(tuple(log + by for log in timing.logs))


def test_a_regression_is_found_beyond_the_noise_and_beyond_3_per_cent() -> None:
    line = regression(QUIET, shifted(QUIET, 0.1))
    assert line is not None
    assert line.startswith("is 10.5% slower than the baseline, expected at most 3.0%")
    assert regression(QUIET, shifted(QUIET, 0.02)) is None
    assert regression(NOISY, shifted(NOISY, 0.1)) is None
    assert regression(QUIET, shifted(QUIET, -0.5)) is None


def test_baselines_are_read_back_and_those_of_another_machine_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "folder/baseline.json"
    write_baseline(file, {"cpu": "a"}, {"decode": QUIET})
    assert read_baseline(file, {"cpu": "a"}) == {"decode": QUIET}
    with pytest.raises(InputError, match="its cpu is a, expected b: make one here with --save-baseline"):
        read_baseline(file, {"cpu": "b"})
    file.write_text("[]")
    with pytest.raises(InputError, match="is no baseline"):
        read_baseline(file, {"cpu": "a"})


@pytest.mark.parametrize(
    ("logs", "message"),
    [("[]", "decode has 0 sessions, expected at least 2"), ("[0.1]", "decode has 1"), ("[0.1, 1e300]", "30")],
)
def test_a_baseline_without_a_spread_is_refused(tmp_path: Path, logs: str, message: str) -> None:
    (tmp_path / "baseline.json").write_text(f'{{"facts": {{}}, "timings": {{"decode": {logs}}}}}')
    with pytest.raises(InputError, match=message):
        read_baseline(tmp_path / "baseline.json", {})


def test_a_call_is_timed_against_the_yardstick_in_five_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only the calls turn: each of them takes eight times as long as the yardstick."""
    now = 0

    def work(ns: int) -> Callable[[], object]:
        def call() -> None:
            nonlocal now
            now += ns

        return call

    opened = []

    def open_call() -> Callable[[], object]:
        opened.append(now)
        return work(8_000)

    monkeypatch.setattr("tumorseg_benchmarks.latency.regression.yardstick", lambda: work(1_000))
    monkeypatch.setattr("tumorseg_benchmarks.latency.regression.time.perf_counter_ns", lambda: now)
    timing = time_call(open_call, rounds=MIN_ROUNDS)
    assert timing.logs == pytest.approx([math.log(8)] * 5)
    assert len(set(opened)) == 5, "every session is opened anew"


def test_the_yardstick_works() -> None:
    a = np.random.default_rng(0).integers(0, 9, (64, 64), np.int32)
    np.testing.assert_array_equal(np.asarray(yardstick()()), a @ a)
