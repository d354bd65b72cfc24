"""The rules written out plainly agree with the code that serves, on masks of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.images.frame import Spacing
from tumorseg_runtime.parity.rules import diameter_rule, lesions_rule, spacing_rule, tensor_rule, walk
from tumorseg_runtime.processing.postprocess import find_lesions
from tumorseg_runtime.processing.preprocess import Preprocessor
from tumorseg_runtime.processing.spacing import measure


@pytest.mark.parametrize("share", [0.1, 0.5, 0.7, 0.95])
def test_lesions(share: float) -> None:
    random = np.random.default_rng(int(share * 100))
    spacing = Spacing(0.5, 0.7, "a test")
    for _ in range(60):
        mask = random.random(random.integers(1, 30, 2)) < share
        mine = {(one.area, one.box, one.border): one for one in lesions_rule(mask)}
        theirs = find_lesions(mask, "a")
        assert len(theirs) == len(mine)
        for lesion in theirs:
            rule = mine[lesion.area_px, lesion.box, walk(lesion.contour)]
            np.testing.assert_allclose(lesion.centroid, rule.centroid)
            assert measure(lesion, [spacing]).diameter_mm == pytest.approx(diameter_rule(rule, 0.5, 0.7))


def test_a_hole_is_no_outer_border_and_an_island_in_it_a_lesion_of_its_own() -> None:
    mask = np.zeros((9, 9), np.bool_)
    mask[1:8, 1:8] = True
    mask[3:6, 3:6] = False
    mask[4, 4] = True
    ring, island = sorted(lesions_rule(mask), key=lambda one: -one.area)
    assert (ring.area, ring.box, len(ring.border)) == (40, (1, 1, 7, 7), 24)
    assert (island.area, island.box, island.border) == (1, (4, 4, 1, 1), {(4, 4)})


def test_a_contour_that_jumps_is_none() -> None:
    assert walk([(0, 0), (3, 1)]) is None
    assert walk([(0, 0), (2, 2)]) == {(0, 0), (1, 1), (2, 2)}


def test_of_several_spacings_the_one_that_holds_the_whole_lesion_counts() -> None:
    left = Spacing(1.0, 1.0, "left", (0, 0, 10, 20))
    right = Spacing(2.0, 2.0, "right", (10, 0, 10, 20))
    assert spacing_rule((2, 2, 5, 5), (left, right)) == (1.0, 1.0)
    assert spacing_rule((8, 2, 5, 5), (left, right)) is None
    assert spacing_rule((2, 2, 5, 5), (left, Spacing(3.0, 3.0, "all"))) is None


@pytest.mark.parametrize("shape", [(64, 96), (37, 211), (1, 1), (300, 5, 3), (64, 96, 3)])
def test_tensor(shape: tuple[int, ...]) -> None:
    contract = Contract(height=64, width=96)
    pixels = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    np.testing.assert_array_equal(tensor_rule(pixels, contract), Preprocessor(contract)(pixels))
