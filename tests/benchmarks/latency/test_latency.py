"""Statistics and interleaving, on a clock that the tests turn."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tumorseg_benchmarks.latency.latency import (
    LatencyStats,
    Sample,
    TimingPlan,
    measure,
    orders,
    speed_up,
    turns,
)
from tumorseg_runtime.core.errors import InputError


class Machine:
    """A machine whose calls take a given time, times a slowness that changes from call to call."""

    def __init__(self, slowness: Callable[[int], float] = lambda call: 1.0) -> None:
        self.now = 0.0
        self.calls: list[tuple[str, int]] = []
        self.slowness = slowness

    def call(self, name: str, seconds: float) -> Callable[[int], dict[str, int]]:
        def run(number: int) -> dict[str, int]:
            took = seconds * self.slowness(len(self.calls))
            self.calls.append((name, number))
            self.now += took
            return {"infer": int(took * 1e9), "decode": 1_000_000}

        return run

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def measure(
        self, seconds: dict[str, float], plan: TimingPlan, prime: bool = False
    ) -> dict[str, list[Sample]]:
        calls = {name: self.call(name, s) for name, s in seconds.items()}
        return measure(calls, plan, prime=prime, pause=self.pause, seconds=lambda: self.now)


def test_finds_twice_as_slow_on_a_machine_that_slows_down_tenfold() -> None:
    """All variants share the rounds, so the trend falls on each: the paired ratio stays at one half."""
    rounds = 20
    machine = Machine(lambda call: 1 + 9 * (call // 3) / rounds)  # three calls per round
    samples = machine.measure({"base": 1.0, "slow": 2.0, "same": 1.0}, TimingPlan(rounds=rounds))
    slow = speed_up(samples["base"], samples["slow"])
    assert slow.median == pytest.approx(0.5)
    assert (slow.min, slow.max) == (pytest.approx(0.5), pytest.approx(0.5))
    assert speed_up(samples["base"], samples["same"]).median == pytest.approx(1.0)
    absolute = LatencyStats.of([sample.ms["infer"] for sample in samples["base"]])
    assert absolute.max > 9 * absolute.min, "the machine did slow down"


def test_samples_say_round_position_and_every_stage_in_milliseconds() -> None:
    samples = Machine().measure({"a": 0.5, "b": 0.25}, TimingPlan(rounds=9))
    assert [sample.round for sample in samples["a"]] == list(range(9))
    assert {samples["a"][n].position + samples["b"][n].position for n in range(9)} == {1}
    assert samples["b"][0].ms == {"infer": 250.0, "decode": 1.0}
    assert samples["b"][0].total_ms == 251.0


def test_outliers_are_kept() -> None:
    samples = Machine(lambda call: 50.0 if call == 3 else 1.0).measure({"a": 0.1}, TimingPlan(rounds=8))
    stats = LatencyStats.of([sample.ms["infer"] for sample in samples["a"]])
    assert (stats.median, stats.max, stats.samples) == (100.0, 5000.0, 8)


def test_every_round_has_every_variant_in_an_order_drawn_by_the_seed() -> None:
    names = ["a", "b", "c", "d"]
    drawn = orders(names, 50, seed=3)
    assert all(sorted(order) == names for order in drawn)
    assert {order[0] for order in drawn} == set(names)
    assert drawn == orders(names, 50, seed=3)
    assert drawn != orders(names, 50, seed=4)
    machine = Machine()
    machine.measure(dict.fromkeys(names, 0.1), TimingPlan(rounds=50, seed=3))
    assert machine.calls == [(name, number) for number, order in enumerate(drawn) for name in order]


def test_priming_runs_the_same_variant_right_before_and_is_not_a_sample() -> None:
    machine = Machine()
    samples = machine.measure({"a": 0.1, "b": 0.1}, TimingPlan(rounds=8), prime=True)
    assert machine.calls[::2] == machine.calls[1::2]
    assert len(machine.calls) == 32
    assert len(samples["a"]) == len(samples["b"]) == 8


def test_the_quickest_call_of_a_turn_stands_for_it_and_all_calls_are_samples() -> None:
    machine = Machine(lambda call: 7.0 if call % 3 == 1 else 1.0 + call % 3)
    calls = {"a": machine.call("a", 0.1)}
    samples = measure(calls, TimingPlan(rounds=8, settle_s=0), prime=False, calls_per_turn=3)["a"]
    assert len(samples) == 24
    assert turns(samples) == pytest.approx([100.0] * 8)
    assert LatencyStats.of([sample.ms["infer"] for sample in samples]).max == pytest.approx(700.0)
    assert turns(samples, "end_to_end") == pytest.approx([101.0] * 8)


def test_percentiles_are_given_only_from_enough_samples() -> None:
    assert (LatencyStats.of(range(63)).p90, LatencyStats.of(range(64)).p90) == (None, pytest.approx(56.7))
    assert LatencyStats.of(range(661)).p99 is None
    assert LatencyStats.of(range(662)).p99 == pytest.approx(654.39)


def test_budget_ends_the_rounds_but_never_before_the_eighth() -> None:
    plan = TimingPlan(rounds=30, settle_s=0.0, budget_s=11.5)
    assert len(Machine().measure({"a": 1.0}, plan)["a"]) == 12
    assert len(Machine().measure({"a": 5.0}, plan)["a"]) == 8


def test_fewer_than_eight_rounds_are_refused() -> None:
    with pytest.raises(InputError, match="rounds is 7, expected at least 8"):
        TimingPlan(rounds=7)
    with pytest.raises(InputError, match="got 7 samples, expected at least 8"):
        LatencyStats.of([1.0] * 7)


def test_spread_interpolates_quartiles() -> None:
    assert LatencyStats.of([8, 7, 6, 5, 4, 3, 2, 1, 0]) == LatencyStats(4.0, 2.0, 6.0, 0.0, 8.0, 9)
