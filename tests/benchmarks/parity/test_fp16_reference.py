"""FP16 is held against the network's own rounding: an error that the wide budget lets pass is a breach."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tumorseg_benchmarks.parity.fp16_reference import NAME, TIMES, is_asked, rounded, rounded_reference
from tumorseg_benchmarks.parity.parity import compare
from tumorseg_benchmarks.parity.references import ReferenceSet, golden_reference
from tumorseg_benchmarks.variants.variants import VARIANTS
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.session import InProcess, Session
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_train.networks.run import Run

FloatArray = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def reference(tiny_bundle: Bundle, tiny_run: Run) -> ReferenceSet:
    return rounded_reference(tiny_run.model(), golden_reference(tiny_bundle), tiny_bundle.contract)


def distance(session: Session, reference: ReferenceSet, bundle: Bundle) -> float:
    report = compare(session, "x", reference, bundle.contract, 1)
    return max(image.relative_error for image in report.images)


class Off(InProcess):
    """A session whose logits are off by so many standard deviations, one pixel up and the next down."""

    def __init__(self, session: Session, error: float) -> None:
        self._session, self._error = session, error
        self.input, self.info = session.input, session.info

    def infer(self, batch: FloatArray) -> FloatArray:
        logits = self._session.infer(batch)
        sign = np.where(np.arange(logits.size) % 2, 1, -1).reshape(logits.shape)
        return np.asarray(logits + self._error * sign, np.float32)


@pytest.mark.slow
def test_every_weight_is_a_half_and_the_network_itself_stays(tiny_run: Run) -> None:
    model = tiny_run.model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        copy = rounded(model, 3)
    assert all(torch.equal(p, p.half().float()) for p in copy.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_a_half_cannot_hold_stays() -> None:
    model = torch.nn.Conv2d(3, 1, 1)
    torch.nn.init.constant_(model.weight, 1e5)
    torch.nn.init.constant_(model.bias, 1 / 3)
    copy = rounded(model, 3)
    assert isinstance(copy, torch.nn.Conv2d)
    assert copy.weight.unique().tolist() == [1e5]
    assert copy.bias is not None
    assert copy.bias.item() == float(np.float16(1 / 3))


@pytest.mark.slow
def test_a_right_file_is_nearer_than_the_limit_and_a_rough_one_is_not(
    tiny_bundle: Bundle, reference: ReferenceSet
) -> None:
    session = open_session(tiny_bundle, precision="fp16")
    assert reference.name == NAME
    assert compare(session, "x", reference, tiny_bundle.contract, 1).passed
    limit = reference.budget("fp16").relative_error
    assert BUDGETS["fp32"].relative_error <= limit < BUDGETS["fp16"].relative_error
    rough = Off(session, 2 * limit * reference.unit)
    usual = dataclasses.replace(golden_reference(tiny_bundle), tensor=None)
    lines = compare(rough, "x", usual, tiny_bundle.contract, 1).breaches
    assert not any("logit error" in line for line in lines), "the wide budget lets it pass"
    lines = compare(rough, "x", reference, tiny_bundle.contract, 1).breaches
    assert any("logit error" in line for line in lines)


def test_the_limit_is_a_multiple_of_what_the_weights_do(tiny_bundle: Bundle, reference: ReferenceSet) -> None:
    golden = golden_reference(tiny_bundle)
    own = (
        max(float(np.abs(a - b).max()) for a, b in zip(golden.logits, reference.logits, strict=True))
        / golden.unit
    )
    least = BUDGETS["fp32"].relative_error
    assert reference.budget("fp16").relative_error == pytest.approx(max(least, TIMES * own))


def test_only_onnx_runtime_on_a_cpu_is_asked() -> None:
    assert [variant.name for variant in VARIANTS if is_asked(variant)] == ["onnx-fp16-onnxruntime-cpu"]


def test_decisions_are_not_held_against_the_rounded_network(
    tiny_bundle: Bundle, reference: ReferenceSet
) -> None:
    """It is no truth: logits at the threshold flip freely where the errors are small."""
    session = open_session(tiny_bundle, precision="fp16")
    threshold = np.float32(tiny_bundle.contract.logit_threshold)
    above = tuple(np.full_like(one, threshold + np.float32(1e-5)) for one in reference.logits)

    class Below(InProcess):
        info, input = session.info, session.input

        def infer(self, batch: FloatArray) -> FloatArray:
            return np.full((len(batch), *above[0].shape), threshold - np.float32(1e-5), np.float32)

    near = dataclasses.replace(reference, logits=above)
    report = compare(Below(), "x", near, tiny_bundle.contract, 1)
    assert all(image.flipped == image.pixels for image in report.images)
    assert report.breaches == ()
