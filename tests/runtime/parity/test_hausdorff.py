"""HD95 against its definition, written out pixel by pixel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime.parity.mask_diff import border, hd95

BoolArray = npt.NDArray[np.bool_]


def slow_border(mask: BoolArray) -> list[tuple[int, int]]:
    padded = np.pad(mask, 1)
    return [
        (y, x)
        for y, x in np.argwhere(mask)
        if not (padded[y, x + 1] and padded[y + 2, x + 1] and padded[y + 1, x] and padded[y + 1, x + 2])
    ]


def slow_hd95(first: BoolArray, second: BoolArray) -> float:
    a, b = np.array(slow_border(first), float), np.array(slow_border(second), float)
    apart = np.hypot(*(a[:, None, axis] - b[None, :, axis] for axis in (0, 1)))
    return max(float(np.percentile(apart.min(axis=axis), 95)) for axis in (0, 1))


@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_definition(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(5, 40, 2)
    first, second = (random.random((height, width)) < share for share in random.uniform(0.02, 0.9, 2))
    first[0, 0] = second[-1, -1] = True
    assert np.argwhere(border(first)).tolist() == [list(pixel) for pixel in slow_border(first)]
    assert hd95(first, second) == pytest.approx(slow_hd95(first, second), abs=1e-4)
    assert hd95(first, second) == hd95(second, first)


def test_a_shift_by_three_pixels_is_three() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:20, 10:30] = True
    assert hd95(mask, np.roll(mask, 3, axis=1)) == 3
    assert hd95(mask, mask) == 0


def test_empty_masks() -> None:
    empty = np.zeros((8, 8), bool)
    one = empty.copy()
    one[2, 3] = True
    assert hd95(empty, empty) == 0
    assert hd95(empty, one) is hd95(one, empty) is None
