from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.processing.postprocess import find_lesions, masks_from_logits, resize_logits

CONTRACT = Contract(height=64, width=64)


def test_a_logit_at_the_threshold_belongs_to_the_class() -> None:
    for probability in (0.5, 0.3, 0.9):
        contract = dataclasses.replace(CONTRACT, threshold=probability)
        threshold = np.float32(contract.logit_threshold)
        below, above = np.nextafter(threshold, np.float32([-np.inf, np.inf]))
        logits = np.full((1, 64, 64), below, np.float32)
        logits[0, 3, 5] = threshold
        logits[0, 4, 5] = above
        masks = masks_from_logits(logits, contract, 64, 64)
        assert masks.dtype == np.bool_
        assert np.argwhere(masks).tolist() == [[0, 3, 5], [0, 4, 5]]


def test_masks_have_the_original_size_and_place() -> None:
    logits = np.full((2, 64, 64), -4, np.float32)
    logits[0, 16:32, 8:24] = 4
    masks = masks_from_logits(logits, CONTRACT, 128, 192)  # twice as high, three times as wide
    assert masks.shape == (2, 128, 192)
    rows, columns = np.nonzero(masks[0])
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (32, 64, 24, 72)
    assert not masks[1].any()
    assert masks_from_logits(logits, CONTRACT, 1, 1).shape == (2, 1, 1)


def test_logits_are_resized_by_half_pixel_centres() -> None:
    plane = np.array([[[0, 1]]], np.float32)
    np.testing.assert_allclose(resize_logits(plane, 1, 4), [[[0, 0.25, 0.75, 1]]], atol=1e-6)
    assert resize_logits(plane, 1, 2) is plane


def test_one_pixel() -> None:
    mask = np.zeros((7, 9), bool)
    mask[4, 6] = True
    (lesion,) = find_lesions(mask, "tumour")
    assert lesion.label == "tumour"
    assert lesion.area_px == 1
    assert lesion.box == (6, 4, 1, 1)
    assert lesion.centroid == (6.0, 4.0)
    assert lesion.contour == ((6, 4),)


def test_a_ring_is_one_lesion_whose_contour_is_the_outer_border() -> None:
    mask = np.zeros((20, 20), bool)
    mask[4:12, 3:13] = True
    mask[6:10, 5:11] = False
    mask[7, 7] = True  # an island in the hole is a lesion of its own
    ring, island = find_lesions(mask, "tumour")
    assert (ring.area_px, ring.box) == (80 - 24, (3, 4, 10, 8))
    assert set(ring.contour) == {(3, 4), (3, 11), (12, 11), (12, 4)}
    assert (island.area_px, island.box) == (1, (7, 7, 1, 1))


def test_lesions_at_the_border_and_over_the_whole_image() -> None:
    (lesion,) = find_lesions(np.ones((4, 6), bool), "tumour")
    assert (lesion.area_px, lesion.box, lesion.centroid) == (24, (0, 0, 6, 4), (2.5, 1.5))
    assert set(lesion.contour) == {(0, 0), (0, 3), (5, 3), (5, 0)}
    corners = np.zeros((5, 5), bool)
    corners[0, 0] = corners[4, 4] = True
    assert [found.box for found in find_lesions(corners, "tumour")] == [(0, 0, 1, 1), (4, 4, 1, 1)]


def test_pixels_that_touch_at_a_corner_are_one_lesion() -> None:
    (lesion,) = find_lesions(np.eye(5, dtype=bool), "tumour")
    assert (lesion.area_px, lesion.box) == (5, (0, 0, 5, 5))


def test_largest_first_and_none_in_an_empty_mask() -> None:
    mask = np.zeros((10, 10), bool)
    mask[0, 0] = mask[5:8, 5:8] = mask[0, 5:7] = True
    lesions = find_lesions(mask, "tumour")
    assert [lesion.area_px for lesion in lesions] == [9, 2, 1]
    assert sum(lesion.area_px for lesion in lesions) == mask.sum()
    assert json.loads(json.dumps(lesions[0].to_dict()))["box"] == [5, 5, 3, 3]
    assert find_lesions(np.zeros((10, 10), bool), "tumour") == ()


@pytest.mark.parametrize("seed", range(5))
def test_contours_refill_to_the_lesions(seed: int) -> None:
    import cv2

    random = np.random.default_rng(seed)
    blobs = cv2.GaussianBlur(random.normal(size=(80, 90)).astype(np.float32), (0, 0), 3) > 0.08
    drawn = np.zeros(blobs.shape, np.uint8)
    for lesion in find_lesions(blobs, "tumour"):
        cv2.drawContours(drawn, [np.array(lesion.contour)[:, None]], -1, 1, cv2.FILLED)
    assert not (blobs & (drawn == 0)).any()  # every pixel of the mask lies inside of a contour
