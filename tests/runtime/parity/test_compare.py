from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.parity.budget import BUDGETS, Budget
from tumorseg_runtime.parity.compare import (
    FinalMasks,
    ImageParity,
    ParityReport,
    compare_image,
    logit_scale,
    mask_dice,
)
from tumorseg_runtime.processing.postprocess import resize_logits

FP32 = BUDGETS["fp32"]
REFERENCE = np.random.default_rng(0).normal(0, 3, (1, 64, 64)).astype(np.float32)


def compare(candidate: npt.NDArray[np.float32], **changes: Any) -> ImageParity:
    options = {"contract": Contract(), "scale": 3.0, "budget": FP32, **changes}
    return compare_image("a", REFERENCE, candidate, **options)


def test_equal_logits_pass() -> None:
    image = compare(REFERENCE.copy(), tensors=(REFERENCE, REFERENCE.copy()))
    assert (image.breaches, image.flipped, image.dice, image.max_error, image.tensor_differs) == (
        (),
        0,
        1,
        0,
        0,
    )


def test_an_error_beyond_the_budget_is_a_breach() -> None:
    limit = FP32.relative_error * 3
    candidate = REFERENCE.copy()
    candidate.flat[np.argmax(REFERENCE)] += np.float32(limit * 0.9)
    assert compare(candidate).breaches == ()
    breach = compare(REFERENCE + np.float32(limit * 0.9)).breaches[0]  # all of them
    assert "mean logit error is 0.0054 standard deviations, expected at most 0.00025" in breach
    candidate = REFERENCE.copy()
    candidate.flat[np.argmax(REFERENCE)] += np.float32(limit * 1.1)  # one logit, far from the threshold
    (breach,) = compare(candidate).breaches
    assert "standard deviations, expected at most 0.006" in breach


def cone(radius: float, x: float = 32, y: float = 32) -> npt.NDArray[np.float32]:
    """Logits (1, 64, 64) that are positive in a disc, and change by one for each pixel of distance."""
    rows, columns = np.mgrid[:64, :64]
    return np.asarray(radius - np.hypot(rows - y, columns - x), np.float32)[None]


def test_flips_are_limited_by_the_length_of_the_border() -> None:
    """The same shift of the border passes for a small and a large lesion, whatever their areas are."""
    budget = Budget(relative_error=9, free_pixels=0, flips_per_border=0.75)
    for radius in (6.0, 12.0, 25.0):
        reference = cone(radius)
        options: Any = {"contract": Contract(), "scale": 1.0, "budget": budget}
        assert compare_image("a", reference, reference + np.float32(0.4), **options).breaches == ()
        image = compare_image("a", reference, reference + np.float32(1.2), **options)
        (breach,) = image.breaches
        assert f"{image.flipped} of 4096 pixels flipped, expected at most 0.75 for each of " in breach
        assert image.amounts == image.breaches
        assert image.dice == pytest.approx(mask_dice(reference >= 0, reference >= -1.2))
    few = REFERENCE.copy()
    few.flat[np.argsort(np.abs(REFERENCE), axis=None)[: FP32.free_pixels]] *= -1
    assert compare(few).breaches == ()


def test_a_mask_of_nothing_but_border_has_the_area_as_its_limit() -> None:
    budget = dataclasses.replace(BUDGETS["fp16"], flips_per_border=None)
    candidate = REFERENCE.copy()
    candidate.flat[np.argsort(np.abs(REFERENCE), axis=None)[:9]] *= -1
    (breach,) = compare(candidate, budget=budget).breaches
    assert breach.startswith("9 of 4096 pixels flipped, expected at most 0.002 of them, within ")


def test_lesions_that_appear_or_vanish_are_events_inside_the_band_alone() -> None:
    reference = np.maximum(cone(12.0, 20), cone(0.0, 50) - 0.3)  # the second one is 0.3 below the threshold
    candidate = np.maximum(cone(12.0, 20), cone(0.0, 50) + 3.0)
    budget = Budget(relative_error=9, free_pixels=0, flips_per_border=0.1, hd95_px=1.0)
    options: Any = {"contract": Contract(), "scale": 1.0, "budget": budget}
    for ours, theirs, kind in ((reference, candidate, "appeared"), (candidate, reference, "vanished")):
        image = compare_image("a", ours, theirs, **options)
        assert image.breaches == ()
        assert image.decisions is not None
        (event,) = image.decisions.events
        assert (event.kind, event.klass, event.area_px, event.outside) == (kind, 0, image.flipped, 0)
        assert event.box == image.decisions.box
        assert (image.decisions.event_px, image.decisions.hd95_px) == (image.flipped, 0)
    final = FinalMasks(candidate >= 0, 64, 64)  # made up behind logits that are right
    image = compare_image("a", reference, reference.copy(), final=final, **options)
    assert image.amounts == ()
    assert "pixels flipped that lie further from the threshold" in image.breaches[0]
    assert "at 64x64: a lesion of 29 pixels appeared at column 47, row 29, 29 of them" in image.breaches[1]


def test_the_threshold_of_the_contract_decides() -> None:
    candidate = np.where(np.abs(REFERENCE - 2) < 1e-3, REFERENCE, REFERENCE)
    at = np.argmin(np.abs(REFERENCE - 2))
    candidate.flat[at] = 4 - REFERENCE.flat[at]  # mirrored at 2
    assert compare(candidate, contract=Contract(threshold=1 / (1 + math.exp(-2)))).flipped == 1
    assert compare(candidate, contract=Contract()).flipped == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_breaches_on_either_side(value: float) -> None:
    broken = REFERENCE.copy()
    broken[0, 5, 5] = value
    assert "1 logits are not finite, expected 0" in compare(broken).breaches
    image = compare_image("a", broken, REFERENCE, contract=Contract(), scale=3, budget=BUDGETS["fp16"])
    assert "1 logits are not finite, expected 0" in image.breaches


def test_one_bit_of_the_tensor_is_a_breach() -> None:
    other = REFERENCE.copy()
    other.view(np.uint32)[0, 1, 1] ^= 1
    image = compare(REFERENCE, tensors=(REFERENCE, other))
    assert image.tensor_differs == 1
    assert image.breaches == ("1 values of the preprocessed tensor differ, expected 0",)
    zeros = np.zeros((1, 2, 2), np.float32)
    assert compare(REFERENCE, tensors=(zeros, -zeros)).tensor_differs == 4  # minus zero has other bits
    assert compare(REFERENCE, tensors=(zeros, zeros.astype(np.float64))).tensor_differs == 4


def test_another_shape_is_a_breach() -> None:
    image = compare(REFERENCE[:, :32])
    assert "logits have shape (1, 32, 64), expected (1, 64, 64)" in image.breaches
    assert math.isinf(image.max_error)


def test_the_report() -> None:
    good, bad = compare(REFERENCE), compare(-REFERENCE)
    report = ParityReport("model.onnx", "fake", "cpu", "fp32", {}, FP32, 3.0, (good, bad))
    assert not report.passed
    assert report.worst is bad
    *of_images, of_all = report.breaches
    assert all(line.startswith("model.onnx: a: ") for line in of_images)
    assert of_all.startswith("model.onnx: all images: ")
    assert json.loads(json.dumps(report.to_dict()))["passed"] is False
    assert ParityReport("m", "fake", "cpu", "fp32", {}, FP32, 3.0, (good,)).passed
    assert not ParityReport("m", "fake", "cpu", "fp32", {}, FP32, 3.0, ()).passed


def test_dice_of_masks() -> None:
    a, b = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool)
    assert mask_dice(a, b) == 0.5
    assert mask_dice(a, ~a) == 0
    assert mask_dice(a & ~a, b & ~b) == 1


def test_constant_or_broken_logits_have_no_scale() -> None:
    assert logit_scale([REFERENCE, REFERENCE]) == pytest.approx(float(REFERENCE.std()), rel=1e-5)
    for broken in (np.full((1, 4, 4), 7, np.float32), np.full((1, 4, 4), np.nan, np.float32)):
        with pytest.raises(InputError, match="expected a positive number"):
            logit_scale([broken])


def test_cosine_and_mean_error_are_told_and_limited() -> None:
    assert compare(REFERENCE.copy()).cosine == 1
    other = REFERENCE + np.float32(0.1)
    image = compare(other, budget=dataclasses.replace(BUDGETS["fp16"], mean_error=0.02, cosine=0.9999))
    expected = float(np.sum(REFERENCE * other, dtype=np.float64))
    expected /= np.sqrt(np.sum(np.float64(REFERENCE) ** 2) * np.sum(np.float64(other) ** 2))
    assert image.cosine == pytest.approx(expected, abs=1e-7)
    assert image.mean_error == pytest.approx(0.1, rel=1e-4)
    assert any(
        "mean logit error is 0.0333 standard deviations, expected at most 0.02" in b for b in image.breaches
    )
    assert any(b.startswith("cosine between the logits is 0.999") for b in image.breaches)
    assert compare(np.zeros_like(REFERENCE)).cosine is None


def test_a_breach_says_where_the_pixels_lie() -> None:
    candidate = REFERENCE.copy()
    candidate[0, 10:20, 30:50] *= -1
    image = compare(candidate)
    assert image.decisions is not None
    assert image.decisions.box == (30, 10, 20, 10)
    assert any(b.endswith("border, within 20x10 pixels at column 30, row 10") for b in image.breaches)


def test_distance_of_the_borders_is_limited_where_a_budget_says_so() -> None:
    reference = np.full((1, 64, 64), -2, np.float32)
    reference[0, 20:40, 20:40] = 2
    candidate = reference.copy()
    candidate[0, 20:40, 40:46] = 2
    budget = Budget(relative_error=9, free_pixels=0, hd95_px=5)
    options: Any = {"contract": Contract(), "scale": 1.0, "budget": budget}
    (breach,) = compare_image("a", reference, candidate, **options).breaches
    assert breach == "distance of the borders (HD95) is 6 pixels, expected at most 5"
    image = compare_image("a", reference, np.full_like(reference, -2), **options)
    assert image.decisions is not None
    assert [event.kind for event in image.decisions.events] == ["vanished"]


def test_all_images_together_have_a_budget() -> None:
    """Lesions that appear count here, so that a few in every image are too many."""
    budget = Budget(relative_error=9, free_pixels=16, flips_per_border=1, flips_per_border_in_all=0.1)
    reference = cone(12.0)
    image = compare_image(
        "a", reference, reference + np.float32(0.05), contract=Contract(), scale=1, budget=budget
    )
    assert image.breaches == ()
    assert image.flipped == 16
    assert image.decisions is not None
    one = ParityReport("m", "fake", "cpu", "fp16", {}, budget, 3.0, (image,))
    assert one.passed  # no more than the free pixels
    two = dataclasses.replace(one, images=(image, image))
    assert not two.passed
    (breach,) = two.breaches
    assert breach.startswith("m: all images: 32 of 8192 pixels flipped, expected at most 0.1 for each of ")
    assert breach.endswith(f" {2 * image.decisions.border} pixels of the masks' borders")
    assert two.only_amounts


def test_masks_at_the_images_own_size_are_held_against_the_rule() -> None:
    reference = cv2.GaussianBlur(REFERENCE[0], (0, 0), 3)[None] * 8
    right = resize_logits(reference, 100, 150) >= 0

    def judged(masks: np.ndarray) -> ImageParity:
        final = FinalMasks(masks, 100, 150)
        same = reference.copy()
        return compare_image("a", reference, same, contract=Contract(), scale=3, budget=FP32, final=final)

    image = judged(right)
    assert image.breaches == ()
    assert image.at_image is not None
    assert (image.at_image.height, image.at_image.width) == (100, 150)
    wrong = {
        "nearest": cv2.resize(reference[0], (150, 100), interpolation=cv2.INTER_NEAREST)[None] >= 0,
        "threshold on logits": resize_logits(reference, 100, 150) >= 0.5,
        "shifted by a pixel": np.roll(right, 1, axis=2),
        "inverted": ~right,
    }
    for name, masks in wrong.items():
        image = judged(masks)
        assert "at 100x150: " in image.breaches[0], name
        assert "further from the threshold than the logits err" in image.breaches[0], name


@pytest.mark.parametrize(
    "shape", [(100, 150), (1, 150, 100), (1, 99, 150), (2, 100, 150), (1, 64, 64), (1, 0, 0)]
)
def test_masks_of_another_size_than_the_images_are_a_breach(shape: tuple[int, ...]) -> None:
    """Also where nothing would flip: there is no tumour at all, and masks at the network's size agree."""
    reference = -np.abs(REFERENCE) - 1
    image = compare_image(
        "a", reference, reference.copy(), contract=Contract(), scale=3, budget=FP32,
        final=FinalMasks(np.zeros(shape, bool), 100, 150),
    )  # fmt: skip
    assert image.breaches == (f"masks have shape {shape}, expected (1, 100, 150) as the image",)
    assert image.at_image is None


def test_masks_beside_a_broken_reference_say_nothing_more() -> None:
    broken = REFERENCE.copy()
    broken[0, 5, 5] = np.inf
    image = compare_image(
        "a",
        broken,
        REFERENCE,
        contract=Contract(),
        scale=3,
        budget=FP32,
        final=FinalMasks(np.zeros((1, 9, 9), bool), 9, 9),
    )
    assert image.at_image is None
    assert "1 logits are not finite, expected 0" in image.breaches


def test_every_precision_has_a_budget_and_none_is_looser_than_halves() -> None:
    assert set(BUDGETS) == {"fp32", "fp16", "bf16", "int8"}
    assert BUDGETS["bf16"] == BUDGETS["fp16"]
