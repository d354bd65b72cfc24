import math

import numpy as np
import pytest
from scipy import stats

from tumorseg_train.report.bootstrap import Ratio, draw_weights, estimate, interval


def ratio(values: np.ndarray) -> Ratio:
    return Ratio(values, np.ones(len(values)))


def test_groups_are_drawn_whole() -> None:
    groups = ["a", "b", "a", "c", "b", "a"]
    weights = draw_weights(groups, draws=500)
    assert weights.shape == (500, 6)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 0] == weights[:, 5]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, 0] + weights[:, 1] + weights[:, 3] == 3).all()  # three groups in each draw
    assert np.allclose(weights.mean(axis=0), 1, atol=0.15)
    assert (draw_weights(groups, draws=500) == weights).all()
    assert (draw_weights(groups, draws=500, seed=1) != weights).any()


def test_interval_of_single_images_is_scipys() -> None:
    values = np.random.default_rng(0).beta(5, 2, 80)
    found = estimate(
        ratio(values), [str(i) for i in range(80)], draw_weights([str(i) for i in range(80)], 20000)
    )
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(theirs.low, abs=2e-3)
    assert found.high == pytest.approx(theirs.high, abs=2e-3)


def test_images_of_one_patient_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    patients = rng.normal(0.7, 0.1, 15)
    values = np.repeat(patients, 8)
    alone = [str(i) for i in range(120)]
    by_patient = [str(i // 8) for i in range(120)]
    narrow = estimate(ratio(values), alone, draw_weights(alone))
    wide = estimate(ratio(values), by_patient, draw_weights(by_patient))
    assert wide.value == narrow.value
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)  # by sqrt(8) in theory


def test_a_slow_bootstrap_of_a_pooled_figure_agrees() -> None:
    rng = np.random.default_rng(3)
    names = [f"g{i}" for i in rng.integers(0, 12, 50)]
    top, bottom = rng.integers(0, 50, (2, 50)).astype(np.float64)
    found = estimate(Ratio(top, bottom), names, draw_weights(names, 4000))
    groups = sorted(set(names))
    members = {g: [i for i, n in enumerate(names) if n == g] for g in groups}
    draws = []
    for _ in range(4000):
        chosen = [i for g in rng.choice(groups, len(groups)) for i in members[g]]
        draws.append(top[chosen].sum() / bottom[chosen].sum())
    assert found.value == top.sum() / bottom.sum()
    assert (found.low, found.high) == pytest.approx(np.percentile(draws, (2.5, 97.5)), abs=0.02)


def test_what_cannot_be_known_is_nan() -> None:
    nothing = estimate(Ratio(np.zeros(3), np.zeros(3)), ["a", "b", "c"], draw_weights(["a", "b", "c"]))
    assert math.isnan(nothing.value)
    assert math.isnan(nothing.low)
    assert math.isnan(interval(np.array([np.nan]), 10)[0])
    assert draw_weights([]).shape == (2000, 0)


def test_fewer_than_ten_groups_have_no_interval() -> None:
    for count in (1, 9, 10):
        groups = [f"g{i // 2}" for i in range(2 * count)]
        found = estimate(ratio(np.linspace(0.5, 0.7, 2 * count)), groups, draw_weights(groups))
        assert found.value == pytest.approx(0.6)
        assert math.isnan(found.low) == math.isnan(found.high) == (count < 10)
