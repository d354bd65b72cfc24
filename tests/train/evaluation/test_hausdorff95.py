import math

import cv2
import numpy as np
import pytest

from tumorseg_runtime.parity.mask_diff import hd95
from tumorseg_train.evaluation.metrics import hausdorff95


def blob(rng: np.random.Generator, shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    noise = cv2.GaussianBlur(rng.random(shape).astype(np.float32), (0, 0), 5)
    return np.asarray(noise > np.quantile(noise, 0.85))


def by_hand(first: np.ndarray, second: np.ndarray, spacing: tuple[float, float]) -> float:
    """Every border pixel against every other, in float64: nothing shared with the code under test."""

    def points(mask: np.ndarray) -> np.ndarray:
        wide = np.pad(mask, 1)
        inner = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
        return np.argwhere(mask & ~inner) * np.asarray(spacing)

    a, b = points(first), points(second)
    distances = np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2))
    return max(float(np.percentile(distances.min(axis=axis), 95)) for axis in (0, 1))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.49, 0.49), (0.3, 1.7)])
def test_as_by_hand(spacing: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        first, second = blob(rng), blob(rng)
        assert hausdorff95(first, second, spacing) == pytest.approx(by_hand(first, second, spacing))
        assert hausdorff95(first, second, spacing) == hausdorff95(second, first, spacing)


def test_as_the_runtime_measures_it() -> None:
    rng = np.random.default_rng(1)
    for _ in range(10):
        first, second = blob(rng), blob(rng)
        theirs = hd95(first, second)
        assert theirs is not None
        assert hausdorff95(first, second) == pytest.approx(theirs, rel=1e-5)


def test_edge_cases() -> None:
    empty, one = np.zeros((2, 9, 9), np.bool_)
    one[4, 4] = True
    assert math.isnan(hausdorff95(empty, one))
    assert math.isnan(hausdorff95(one, empty))
    assert math.isnan(hausdorff95(empty, empty))
    assert hausdorff95(one, one) == 0
    full = np.ones((9, 9), np.bool_)  # its border is the image's edge
    assert hausdorff95(full, full) == 0
    assert hausdorff95(one, full) == by_hand(one, full, (1, 1))


def test_a_stray_pixel_in_a_hundred_does_not_count() -> None:
    truth = np.zeros((200, 200), np.bool_)
    truth[50:100, 50:100] = True
    predicted = truth.copy()
    predicted[199, 199] = True
    assert hausdorff95(predicted, truth) == 0
