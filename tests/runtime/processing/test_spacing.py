from __future__ import annotations

import numpy as np
import pytest

from tumorseg_runtime.images.frame import Spacing
from tumorseg_runtime.processing.postprocess import Lesion, find_lesions
from tumorseg_runtime.processing.spacing import measure


def rectangle(left: int, top: int, width: int, height: int) -> Lesion:
    mask = np.zeros((60, 80), bool)
    mask[top : top + height, left : left + width] = True
    (lesion,) = find_lesions(mask, "tumour")
    return lesion


def test_area_box_and_diameter_of_a_rectangle() -> None:
    lesion = measure(rectangle(5, 7, 30, 20), [Spacing(row_mm=0.5, column_mm=0.1, source="PixelSpacing")])
    assert lesion.area_mm2 == pytest.approx(600 * 0.05)
    assert lesion.box_mm == pytest.approx((3.0, 10.0))
    assert lesion.diameter_mm == pytest.approx(np.hypot(3, 10))


def test_one_pixel_has_the_diagonal_of_a_pixel() -> None:
    lesion = measure(rectangle(0, 0, 1, 1), [Spacing(3.0, 4.0, "PixelSpacing")])
    assert (lesion.area_mm2, lesion.diameter_mm) == (12.0, 5.0)


def test_a_disc_has_its_diameter() -> None:
    y, x = np.mgrid[:100, :100]
    (lesion,) = find_lesions(np.hypot(y - 50, x - 50) <= 30, "tumour")
    found = measure(lesion, [Spacing(0.2, 0.2, "PixelSpacing")])
    assert found.diameter_mm == pytest.approx(60 * 0.2, abs=0.3)
    assert found.area_mm2 == pytest.approx(np.pi * 36, rel=0.02)


def test_without_spacing_nothing_is_said() -> None:
    lesion = rectangle(5, 7, 3, 3)
    assert measure(lesion, ()) is lesion
    assert (lesion.area_mm2, lesion.box_mm, lesion.diameter_mm) == (None, None, None)


def test_a_region_holds_only_for_lesions_inside_of_it() -> None:
    left = Spacing(0.1, 0.1, "SequenceOfUltrasoundRegions", (0, 0, 40, 60))
    right = Spacing(0.2, 0.2, "SequenceOfUltrasoundRegions", (40, 0, 40, 60))
    assert measure(rectangle(5, 5, 10, 10), [left, right]).area_mm2 == pytest.approx(1.0)
    assert measure(rectangle(45, 5, 10, 10), [left, right]).area_mm2 == pytest.approx(4.0)
    assert measure(rectangle(35, 5, 10, 10), [left, right]).area_mm2 is None  # lies across the border
    everywhere = Spacing(0.3, 0.3, "PixelSpacing")
    assert measure(rectangle(5, 5, 10, 10), [left, everywhere]).area_mm2 is None  # they contradict
