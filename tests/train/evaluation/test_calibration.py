import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from tumorseg_train.evaluation.calibration import BINS, Bins, around, calibration
from tumorseg_train.report.bootstrap import draw_weights


def images(rng: np.random.Generator, count: int, power: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Probabilities p, and truth that is true with probability p ** power."""
    p = rng.random((count, 30, 40)).astype(np.float32)
    return [(each, rng.random(each.shape) < each**power) for each in p]


def test_ece_and_brier_as_a_second_implementation() -> None:
    rng = np.random.default_rng(0)
    pairs = images(rng, 10, 2.0)
    found = calibration([Bins.of(*pair) for pair in pairs], draw_weights(list("abcdefghij")))
    p = np.concatenate([p.ravel() for p, _ in pairs])
    y = np.concatenate([y.ravel() for _, y in pairs])
    peer = binary_calibration_error(torch.from_numpy(p), torch.from_numpy(y).int(), n_bins=BINS, norm="l1")
    assert found["ece"]["value"] == pytest.approx(float(peer), abs=1e-5)
    assert found["brier"] == pytest.approx(float(np.mean((p.astype(np.float64) - y) ** 2)))
    assert found["pixels"] == p.size
    assert found["ece"]["low"] < found["ece"]["value"] < found["ece"]["high"]


def test_a_true_probability_is_calibrated_and_a_bold_one_is_not() -> None:
    rng = np.random.default_rng(1)
    honest = calibration(
        [Bins.of(*pair) for pair in images(rng, 20, 1.0)], draw_weights(list("abcdefghijklmnopqrst"))
    )
    bold = calibration(
        [Bins.of(*pair) for pair in images(rng, 20, 3.0)], draw_weights(list("abcdefghijklmnopqrst"))
    )
    assert honest["ece"]["value"] < 0.02
    assert bold["ece"]["value"] > 0.2
    for point in honest["points"]:
        assert point["observed"] == pytest.approx(point["predicted"], abs=0.06)
    assert all(point["observed"] < point["predicted"] for point in bold["points"][2:-2])


def test_every_pixel_falls_into_one_bin() -> None:
    p = np.array([0, 0.049, 0.05, 0.5, 0.999, 1], np.float32)
    bins = Bins.of(p, np.array([0, 0, 1, 1, 1, 1], np.bool_))
    assert bins.count.sum() == 6
    assert (bins.count[0], bins.count[1], bins.count[-1]) == (2, 1, 2)
    assert bins.observed.sum() == 4


def test_around_a_tumour() -> None:
    truth = np.zeros((50, 60), np.bool_)
    truth[20:30, 2:22] = True
    assert around(truth) == (slice(15, 35), slice(0, 32))
    box = np.zeros_like(truth)
    box[around(truth)] = True
    assert (box & truth).sum() == truth.sum()


def test_no_pixel_no_figure() -> None:
    found = calibration([], draw_weights([]))
    assert math.isnan(found["ece"]["value"])
    assert math.isnan(found["brier"])
    assert found["points"] == []
