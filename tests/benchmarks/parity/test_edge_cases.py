from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fakes.session import FakeSession
from tumorseg_benchmarks.parity.edge_cases import edge_cases, edge_reference
from tumorseg_benchmarks.parity.parity import compare, score
from tumorseg_benchmarks.reports.report import parity_table
from tumorseg_benchmarks.variants.candidates import Candidate
from tumorseg_benchmarks.variants.pytorch import PyTorchSession
from tumorseg_benchmarks.variants.variants import VARIANTS
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.processing.preprocess import Preprocessor

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run


def test_files_hold_the_pixels_that_are_named() -> None:
    cases = edge_cases()
    assert len({image.name for image, _ in cases}) == len(cases) == 26
    for image, pixels in cases:
        np.testing.assert_array_equal(image.pixels(), pixels, err_msg=image.name)
    extremes = {image.name: (int(pixels.min()), int(pixels.max())) for image, pixels in cases}
    assert extremes["black.png"] == (0, 0)
    assert extremes["white.png"] == (255, 255)
    assert extremes["step.png"] == extremes["ramp.png"] == extremes["stripes.png"] == (0, 255)


@pytest.mark.slow
def test_pytorch_passes_itself_and_errors_are_in_the_unit_of_real_images(tiny_run: Run) -> None:
    session = PyTorchSession(tiny_run.model(), "cpu")
    reference = edge_reference(session, tiny_run.contract, 3.0)
    report = compare(session, "PyTorch", reference, tiny_run.contract)
    assert report.passed, report.breaches
    assert report.scale == 3
    assert all(image.tensor_differs == 0 for image in report.images)
    assert reference.budget("fp32") == BUDGETS["fp32"]
    assert reference.budget("fp16").relative_error == reference.budget("bf16").relative_error == 2


@pytest.mark.parametrize(
    ("precision", "error", "status"),
    [
        ("int8", 50.0, "unverified"),
        ("fp16", 50.0, "refused"),
        ("int8", math.nan, "refused"),
        ("int8", None, "refused"),
    ],
)
def test_int8_far_from_its_calibration_images_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, precision: str, error: float | None, status: str
) -> None:
    """A large error there is no fault of INT8, a wrong tensor (error None) or NaN is."""
    contract = Contract(height=64, width=96, mean=(0.5,), std=(0.2,))
    reference = edge_reference(FakeSession(), contract, 1.0)
    reference = dataclasses.replace(reference, images=reference.images[:2], logits=reference.logits[:2])
    variant = next(one for one in VARIANTS if (one.engine, one.precision) == ("onnxruntime", precision))
    session = FakeSession()
    session.info = dataclasses.replace(session.info, precision=precision)
    right = Preprocessor.__call__
    if error is None:
        monkeypatch.setattr(Preprocessor, "__call__", lambda *args: right(*args) + np.float32(0.01))
    else:
        infer = session.infer
        monkeypatch.setattr(session, "infer", lambda batch: infer(batch) + np.float32(error))
    row = score(Candidate(variant, session), reference, 1, contract, lambda line: None)
    assert row.status == status, row
    if status == "refused":
        assert row.breaches
    else:
        assert "INT8's ranges" in parity_table([row]).rows[0][-1]
        assert row.to_dict()["report"] is not None


def test_gray_contracts_have_no_colour_and_the_rule_makes_the_tensors() -> None:
    contract = Contract(height=64, width=96, mean=(0.5,), std=(0.2,))
    reference = edge_reference(FakeSession(), contract, 1.0)
    assert len(reference.images) == 15
    assert all(image.pixels().ndim == 2 for image in reference.images)
    assert reference.tensor is not None
    for index, image in enumerate(reference.images):
        np.testing.assert_array_equal(Preprocessor(contract)(image.pixels()), reference.tensor(index))
