"""The share of failing images and its one-sided bound by Clopper and Pearson."""

from __future__ import annotations

import pytest

from tumorseg_runtime.parity.failures import Failures, upper_bound


def test_no_failure_among_many_is_told_with_its_bound() -> None:
    assert Failures(104, 0).line == "0 of 104 failed: at most 2.8 % with 95 % confidence"
    assert Failures(12, 0).line == "0 of 12 failed: at most 22.1 % with 95 % confidence"
    assert Failures(104, 0).to_dict()["at_most"] == pytest.approx(1 - 0.05 ** (1 / 104), abs=1e-9)


@pytest.mark.parametrize(
    ("failed", "count", "bound"),  # scipy.stats.beta.ppf(0.95, failed + 1, count - failed)
    [(1, 10, 0.3941633), (2, 122, 0.0507038), (5, 10, 0.7775589), (9, 10, 0.9948838), (10, 10, 1.0)],
)
def test_bound_is_that_of_the_beta_distribution(failed: int, count: int, bound: float) -> None:
    assert upper_bound(failed, count) == pytest.approx(bound, abs=1e-4)


def test_an_image_counts_once_and_fails_where_it_failed_once() -> None:
    assert Failures.of([("a", False), ("b", False), ("a", True), ("a", False)]) == Failures(2, 1)
