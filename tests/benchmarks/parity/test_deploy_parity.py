"""Deploy forms in the comparison: right ones pass, and what a wrong one does is seen in its masks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_benchmarks.parity.parity import check_parity
from tumorseg_benchmarks.variants.variants import VARIANTS
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.compare import FinalMasks, compare_final_masks
from tumorseg_runtime.processing.postprocess import resize_masks

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

FP32 = BUDGETS["fp32"]
LOGITS = np.random.default_rng(5).normal(0, 3, (1, 64, 64)).astype(np.float32)
MASK = LOGITS >= 0


@pytest.mark.slow
@pytest.mark.usefixtures("few_conformance_files")
def test_right_forms_pass_on_golden_and_split_images(full_bundle: Bundle, tiny_run: Run) -> None:
    rows = check_parity(full_bundle, tiny_run, "test", 0, variants=VARIANTS[:1])  # PyTorch, and deploy forms
    rows = [row for row in rows if "deploy" in row.variant.format]
    assert {(row.variant.format, row.images, row.batch) for row in rows} == {
        (format, images, batch)
        for format in ("onnx-deploy", "onnx-deploy-gray")
        for images, batch in (
            ("conformance", 4),
            ("golden", 1),
            ("golden", 4),
            ("test", 1),
            ("edge cases", 1),
        )
    }
    for row in rows:
        assert row.status == "passed", row.breaches
        assert row.report is not None
        assert all(image.tensor_differs == 0 for image in row.report.images)
        assert all(math.isnan(image.max_error) for image in row.report.images)
        assert row.report.images[0].at_image is not None
        assert row.noninferiority is None  # its masks exist at the images' own size alone


def compared(mask: npt.NDArray[np.bool_], **options: Any) -> tuple[str, ...]:
    return compare_final_masks(
        "a", LOGITS, FinalMasks(mask, 64, 64), contract=Contract(), allowed=3e-3, budget=FP32, **options
    ).breaches


def test_what_is_wrong_with_a_mask_is_said() -> None:
    assert compared(MASK.copy()) == ()
    near = MASK.copy()
    near.flat[np.argmin(np.abs(LOGITS))] ^= True
    assert compared(near) == ()  # within the error that FP32 may make
    far = MASK.copy()
    far.flat[np.argmax(LOGITS)] ^= True
    (breach,) = compared(far)
    assert "1 pixels flipped that lie further from the threshold than the logits err" in breach
    assert compared(MASK[:, :32])[0] == "masks have shape (1, 32, 64), expected (1, 64, 64) as the image"
    tensors = np.zeros((3, 2, 2), np.float32), np.full((3, 2, 2), -0.0, np.float32)
    assert compared(MASK, tensors=tensors) == ("12 values of the preprocessed tensor differ, expected 0",)


def test_at_another_size_a_mask_lies_between_the_strictest_and_the_most_generous_network() -> None:
    contract = Contract(height=64, width=64)
    masks = resize_masks(MASK.astype(np.uint8), contract, 90, 133)

    def breaches(masks: npt.NDArray[np.bool_]) -> tuple[str, ...]:
        return compare_final_masks(
            "a", LOGITS, FinalMasks(masks, 90, 133), contract=contract, allowed=3e-3,
            budget=FP32,
        ).breaches  # fmt: skip

    assert breaches(masks) == ()
    made_up = masks.copy()
    row, column = np.argwhere(~masks[0])[0]
    made_up[0, row, column : column + 5] = True
    assert "pixels flipped that lie further from the threshold" in breaches(made_up)[0]
