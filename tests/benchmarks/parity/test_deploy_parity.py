"""Deploy forms in the comparison: right ones pass, and what a wrong one does is seen in its masks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_benchmarks.parity.deploy_parity import compare_deploy, compare_mask, deploy_candidates, fitting
from tumorseg_benchmarks.parity.parity import check_parity, golden_reference
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.session import MASKS, InputForm, SessionInfo
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.compare import ParityReport

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

FP32 = BUDGETS["fp32"]
LOGITS = np.random.default_rng(5).normal(0, 3, (1, 64, 64)).astype(np.float32)
MASK = (LOGITS >= 0).astype(np.uint8)


@pytest.fixture(scope="module")
def deploy_bundle(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """ONNX with both of its deploy forms."""
    from tumorseg_export.bundle.export import export_run

    targets = ("onnx", "onnx-deploy", "onnx-deploy-gray")
    return export_run(tiny_run, tmp_path_factory.mktemp("deploy") / "bundle", targets=targets)


def test_right_forms_pass_on_golden_and_split_images(deploy_bundle: Bundle, tiny_run: Run) -> None:
    rows = [row for row in check_parity(deploy_bundle, tiny_run, "test", 0) if "deploy" in row.variant.format]
    assert {(row.variant.format, row.images, row.batch) for row in rows} == {
        (format, images, batch)
        for format in ("onnx-deploy", "onnx-deploy-gray")
        for images, batch in (("golden", 1), ("golden", 4), ("test", 1), ("edge cases", 1))
    }
    for row in rows:
        assert row.status == "passed", row.breaches
        assert row.report is not None
        assert all(image.tensor_differs == 0 for image in row.report.images)
        assert all(math.isnan(image.max_error) for image in row.report.images)
        assert row.report.images[0].decisions is not None
        assert (row.noninferiority is None) == (row.images != "test")


def test_gray_forms_see_gray_images_alone(deploy_bundle: Bundle) -> None:
    reference = golden_reference(deploy_bundle)
    sessions = {c.variant.format: c.session for c in deploy_candidates(deploy_bundle)}
    colour, gray = sessions["onnx-deploy"], sessions["onnx-deploy-gray"]
    assert colour is not None
    assert gray is not None
    assert fitting(colour, reference, deploy_bundle.contract) is reference
    kept = fitting(gray, reference, deploy_bundle.contract)
    assert kept is not None
    assert all(image.pixels().ndim == 2 for image in kept.images)
    assert kept.tensor is not None
    assert len(kept.images) == len(kept.logits) <= len(reference.images)


def judge(mask: npt.NDArray[Any]) -> tuple[str, ...]:
    return compare_mask("a", LOGITS, mask, 0.0, 3.0, FP32, None).breaches


def test_what_is_wrong_with_a_mask_is_said() -> None:
    assert judge(MASK.copy()) == ()
    near = MASK.copy()
    near.flat[np.argmin(np.abs(LOGITS))] ^= 1
    assert judge(near) == ()  # within the error that FP32 may make
    far = MASK.copy()
    far.flat[np.argmax(LOGITS)] ^= 1
    (breach,) = judge(far)
    assert "1 pixels flipped that lie further from the threshold than the logits err" in breach
    undecided = MASK.copy()
    undecided[0, 3, 3] = 255
    assert judge(undecided)[0] == "1 pixels of the mask are neither 0 nor 1, expected 0"
    assert judge(MASK[:, :32])[0] == "mask is uint8 (1, 32, 64), expected uint8 (1, 64, 64)"
    assert judge(MASK.astype(np.float32))[0].startswith("mask is float32")
    tensors = np.zeros((3, 2, 2), np.float32), np.full((3, 2, 2), -0.0, np.float32)
    found = compare_mask("a", LOGITS, MASK, 0.0, 3.0, FP32, tensors)
    assert found.breaches == ("12 values of the preprocessed tensor differ, expected 0",)


class Inverted:
    """A deploy form whose classes are exchanged."""

    output = MASKS
    input = InputForm(dtype="uint8", channels=3)
    info = SessionInfo("fake", "cpu", "fp32", {})

    def infer(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return np.ones((len(batch), 1, 64, 64), np.uint8)


def test_compare_deploy_judges_each_image_once(deploy_bundle: Bundle) -> None:
    seen: list[int] = []
    report = compare_deploy(
        Inverted(), "inverted", golden_reference(deploy_bundle), deploy_bundle.contract,
        [[0, 1, 2], [3, 0, 1]], lambda index, masks: seen.append(index),
    )  # fmt: skip
    assert isinstance(report, ParityReport)
    assert seen == [0, 1, 2, 3]
    assert [image.image for image in report.images] == list(deploy_bundle.golden)
    assert not report.passed
