from __future__ import annotations

import numpy as np
import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_train.layouts.masks import MaskRule, border_share, read_tumour

TRUTH = np.zeros((64, 64), np.bool_)
TRUTH[20:32, 20:34] = True  # 168 pixels


def coloured(background: tuple[int, int, int], tumour: tuple[int, int, int]) -> np.ndarray:
    mask = np.empty((64, 64, 3), np.uint8)
    mask[...] = background
    mask[TRUTH] = tumour
    return mask


BLUE_RED = coloured((0, 0, 255), (255, 0, 0))
WHITE_RED = coloured((255, 255, 255), (255, 0, 0))
GREEN_RED = coloured((0, 0, 0), (255, 0, 0))
GREEN_RED[2:8, 2:8] = (0, 255, 0)
SOFT = np.where(TRUTH, 250, 3).astype(np.uint8)
SOFT[20] = np.arange(64) * 4


@pytest.mark.parametrize("mask", [BLUE_RED, WHITE_RED, GREEN_RED])
def test_a_mask_whose_tumour_is_open_is_refused_until_it_is_named(mask: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"has [23] colours \(.*--tumour '#ff0000'"):
        read_tumour(mask, MaskRule())
    for named in ("#ff0000", "red", "#FF0000, yellow"):
        assert np.array_equal(read_tumour(mask, MaskRule(named)), TRUTH)


@pytest.mark.parametrize(
    ("mask", "rule", "right"),
    [
        (TRUTH.astype(np.uint8), MaskRule(), TRUTH),
        (TRUTH.astype(np.uint16), MaskRule(), TRUTH),
        (TRUTH.astype(np.uint16) * np.uint16(65535), MaskRule("65535"), TRUTH),
        (TRUTH.astype(np.int32) * 7, MaskRule("7"), TRUTH),
        ((~TRUTH).astype(np.uint8) * np.uint8(255), MaskRule("0"), TRUTH),
        ((~TRUTH).astype(np.uint8) * np.uint8(255), MaskRule("black"), TRUTH),
        (np.where(TRUTH, 2, 1).astype(np.uint8), MaskRule("2"), TRUTH),
        (np.where(TRUTH, 4, 1).astype(np.uint8), MaskRule("1,4"), np.ones_like(TRUTH)),
        (np.where(TRUTH, 4, 0).astype(np.uint8), MaskRule("any"), TRUTH),
        (coloured((0, 0, 0), (255, 255, 255)), MaskRule("255"), TRUTH),
        (GREEN_RED, MaskRule("any"), (GREEN_RED > 0).any(axis=2)),
        (SOFT, MaskRule("", 128), SOFT >= 128),
        (SOFT, MaskRule("0", 128), SOFT < 128),
    ],
)
def test_masks_are_read_as_declared(mask: np.ndarray, rule: MaskRule, right: np.ndarray) -> None:
    assert np.array_equal(read_tumour(mask, rule), right)


def test_a_soft_mask_is_refused_until_a_threshold_is_declared() -> None:
    with pytest.raises(InputError, match=r"has \d+ values .*--soft-threshold 128"):
        read_tumour(SOFT, MaskRule())


def test_a_gray_value_is_no_colour() -> None:
    with pytest.raises(InputError, match=r"is coloured .*the gray value 1, expected a colour"):
        read_tumour(BLUE_RED, MaskRule("1"))


@pytest.mark.parametrize("tumour", ["rgb(1,2,3)", "#ff00", "purpleish", "-1", "70000", "1,,2"])
def test_no_colour_is_refused_in_one_line(tumour: str) -> None:
    with pytest.raises(InputError, match=r"tumour is .*, expected a colour such as '#ff0000'") as caught:
        MaskRule(tumour)
    assert "\n" not in str(caught.value)


def test_the_border_of_an_inverted_mask_is_full() -> None:
    assert border_share(TRUTH) == 0
    assert border_share(~TRUTH) == 1
