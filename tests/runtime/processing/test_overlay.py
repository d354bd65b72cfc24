from __future__ import annotations

import numpy as np
import pytest

from tumorseg_runtime.processing.overlay import COLOURS, draw_overlay


@pytest.mark.parametrize("shape", [(60, 80), (60, 80, 3)])
def test_inside_is_tinted_the_border_is_drawn_and_the_rest_is_untouched(shape: tuple[int, ...]) -> None:
    image = np.full(shape, 100, np.uint8)
    mask = np.zeros((1, 60, 80), bool)
    mask[0, 10:40, 20:60] = True
    mask[0, 20:30, 30:50] = False  # a hole
    picture = draw_overlay(image, mask)
    assert picture.shape == (60, 80, 3)
    assert (image == 100).all()
    red, green, blue = COLOURS[0]
    assert picture[10, 40].tolist() == [red, green, blue]
    assert picture[19, 40].tolist() == [red, green, blue]  # the hole's border
    assert picture[15, 25].tolist() == [round(65 + 0.35 * c) for c in (red, green, blue)]
    assert (picture[25, 40] == 100).all()
    assert (picture[50:] == 100).all()


def test_classes_have_their_own_colours() -> None:
    masks = np.zeros((2, 40, 40), bool)
    masks[0, 5:15, 5:15] = masks[1, 25:35, 25:35] = True
    picture = draw_overlay(np.zeros((40, 40), np.uint8), masks)
    assert picture[5, 10].tolist() == list(COLOURS[0])
    assert picture[25, 30].tolist() == list(COLOURS[1])


def test_an_empty_mask_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    np.testing.assert_array_equal(draw_overlay(image[:, ::-1], np.zeros((1, 9, 9), bool)), image[:, ::-1])
