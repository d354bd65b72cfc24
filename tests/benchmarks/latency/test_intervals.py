"""Intervals, verdicts, trends and tails, on numbers whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tumorseg_benchmarks.latency.intervals import SpeedUp, Trend, fewest_samples, median_interval


@pytest.mark.parametrize("count", [8, 20, 80])
def test_intervals_hold_the_true_median_as_often_as_they_say(count: int) -> None:
    """On noise with heavy tails; 95 % of 200 intervals should hold 0, and 91 % is 2.6 deviations off."""
    random = np.random.default_rng(count)
    held = 0
    for _ in range(200):
        low, high = median_interval(random.standard_t(2, count) * 0.02)
        held += low <= 0 <= high
    assert held >= 182


def test_bursts_widen_the_interval() -> None:
    """Noise that comes in runs tells less than independent noise of the same size."""
    random = np.random.default_rng(1)
    independent = random.standard_normal(80)
    runs = np.repeat(random.standard_normal(20), 4)
    widths = [high - low for low, high in map(median_interval, (independent, runs))]
    assert widths[1] > 1.3 * widths[0]


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [(0.97, "slower"), (1.03, "faster"), (1.0, "no difference"), (1.002, "no difference")],
)
def test_verdicts(ratio: float, verdict: str) -> None:
    noise = np.random.default_rng(2).normal(0, 0.002, 80)
    gain = SpeedUp.of(list(ratio * np.exp(noise)))
    assert gain.verdict == verdict
    assert gain.low <= gain.median <= gain.high
    assert gain.to_dict()["verdict"] == verdict


def test_one_terrible_round_changes_no_verdict_and_is_shown() -> None:
    ratios = [1.0] * 79 + [50.0]
    gain = SpeedUp.of(ratios)
    assert gain.verdict == "no difference"
    assert gain.max == pytest.approx(50)


def test_layer_diff_is_found_where_it_is_and_has_its_size() -> None:
    noise = np.random.default_rng(3).normal(0, 1, 60)
    rising = Trend.of(list(100 + noise + np.linspace(0, 10, 60)))
    assert rising.found
    assert rising.percent == pytest.approx(10, abs=3)
    assert not Trend.of(list(100 + noise)).found
    assert not Trend.of([5.0] * 20).found
    found = sum(Trend.of(list(np.random.default_rng(seed).normal(0, 1, 30))).found for seed in range(200))
    assert found <= 8  # 1 % are 2


def test_counts_are_those_of_mlperf() -> None:
    assert (fewest_samples(0.9), fewest_samples(0.99)) == (64, 662)


def test_eight_equal_ratios_have_an_interval_of_no_width() -> None:
    gain = SpeedUp.of([2.0] * 8)
    assert (gain.low, gain.median, gain.high) == (pytest.approx(2), pytest.approx(2), pytest.approx(2))
    assert math.isclose(gain.trend.p, 1.0)
