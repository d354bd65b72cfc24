from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime.parity.mask_diff import Event, compare_masks
from tumorseg_runtime.parity.rules import resized_rule
from tumorseg_runtime.processing.postprocess import resize_logits

LOGITS = np.full((1, 20, 30), -4, np.float32)
LOGITS[0, 5:10, 5:12] = 3  # 35 pixels
LOGITS[0, 15:17, 20:22] = 0.01  # 4 pixels near the threshold
OURS = LOGITS >= 0
DISTANCE = np.abs(LOGITS)


def flipped(*pixels: tuple[int, int]) -> npt.NDArray[np.bool_]:
    mask = OURS.copy()
    for y, x in pixels:
        mask[0, y, x] ^= True
    return mask


def test_equal_masks() -> None:
    same = compare_masks(OURS, OURS.copy(), DISTANCE <= 0, 0.0)
    assert (same.flipped, same.outside, same.box, same.where) == (0, 0, None, "")
    assert (same.dice, same.hd95_px, same.lesions, same.area_px) == (1, 0, (2, 2), (39, 39))
    assert (same.height, same.width, same.pixels) == (20, 30, 600)


def test_flips_are_told_apart_by_the_band() -> None:
    found = compare_masks(OURS, flipped((15, 20), (16, 20), (5, 5)), DISTANCE <= 0.02, 0.02)
    assert (found.near, found.flipped, found.outside) == (4, 3, 1)
    assert found.box == (5, 5, 16, 12)  # left, top, width, height
    assert found.where == "within 16x12 pixels at column 5, row 5"
    assert found.area_px == (39, 36)
    assert found.dice == pytest.approx(2 * 36 / (39 + 36))


def test_a_lesion_that_vanishes_is_an_event_and_moves_no_border() -> None:
    found = compare_masks(OURS, flipped((15, 20), (15, 21), (16, 20), (16, 21)), DISTANCE <= 0.02, 0.02)
    assert found.lesions == (2, 1)
    assert found.outside == 0
    assert (found.hd95_px, found.event_px) == (0, 4)
    assert found.events == (Event("vanished", 0, 4, (20, 15, 2, 2), 0),)
    nothing = compare_masks(OURS, OURS & False, DISTANCE <= 0.02, 0.02)
    assert [(one.area_px, one.outside) for one in nothing.events] == [(35, 35), (4, 0)]
    assert nothing.outside == 35


def test_two_pixels_that_touch_at_a_corner_are_one_lesion() -> None:
    mask = np.zeros((1, 6, 6), bool)
    mask[0, 2, 2] = mask[0, 3, 3] = True
    assert compare_masks(mask, mask, np.zeros((1, 6, 6), np.bool_), 0).lesions == (1, 1)


def test_the_worst_class_gives_the_distance() -> None:
    two = np.concatenate([OURS, OURS])
    other = np.concatenate([OURS, np.roll(OURS, 2, axis=2)])
    found = compare_masks(two, other, np.zeros(two.shape, np.bool_), 0)
    assert found.hd95_px == 2
    assert found.lesions == (4, 4)
    assert found.pixels == 1200
    assert dataclasses.asdict(found)["lesions"] == (4, 4)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (48, 96), (37, 301), (200, 3)])
@pytest.mark.parametrize("source", [(1, 1), (64, 64), (32, 96)])
def test_the_rule_is_what_the_runtime_resizes_by(size: tuple[int, int], source: tuple[int, int]) -> None:
    logits = np.random.default_rng(3).normal(0, 5, (2, *source)).astype(np.float32)
    by_rule = resized_rule(logits, *size)
    assert by_rule.shape == (2, *size)
    np.testing.assert_allclose(resize_logits(logits, *size), by_rule, atol=2e-5)


def test_the_rule_is_not_another_one() -> None:
    """Nearest, area and aligned corners give other numbers: the comparison above can fail."""
    logits = np.random.default_rng(3).normal(0, 5, (1, 64, 64)).astype(np.float32)
    by_rule = resized_rule(logits, 96, 40)[0]
    for other in (cv2.INTER_NEAREST, cv2.INTER_AREA, cv2.INTER_CUBIC):
        assert np.abs(cv2.resize(logits[0], (40, 96), interpolation=other) - by_rule).max() > 0.1
