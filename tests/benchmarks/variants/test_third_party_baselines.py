"""Every baseline runs the network, or says in one line why it does not."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tumorseg_benchmarks.variants import candidates
from tumorseg_benchmarks.variants import third_party_baselines as third_party
from tumorseg_benchmarks.variants.candidates import open_candidate, why_not
from tumorseg_benchmarks.variants.third_party_baselines import (
    THIRD_PARTY_BASELINES,
    StockSession,
    why_no_baseline,
)
from tumorseg_benchmarks.variants.variants import Variant
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.parity.budget import BUDGETS

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

ON_CPU = [one for one in THIRD_PARTY_BASELINES if one.group == "cpu" and one.engine != "pytorch-compiled"]
COMPILED = next(one for one in THIRD_PARTY_BASELINES if one.engine == "pytorch-compiled")


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ON_CPU, ids=lambda baseline: baseline.engine)
def test_each_baseline_gives_the_networks_logits_within_the_budget_of_its_precision(
    baseline: Variant, tiny_bundle: Bundle, tiny_run: Run
) -> None:
    import torch

    reason = why_not(baseline, tiny_bundle, tiny_run)
    if reason:
        pytest.skip(reason)
    candidate = open_candidate(baseline, tiny_bundle, tiny_run, 1)
    assert candidate.session is not None, candidate.reason
    contract = tiny_run.contract
    shape = (2, contract.channels, contract.height, contract.width)
    batch = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with torch.inference_mode():
        right = tiny_run.model()(torch.from_numpy(batch)).numpy()
    logits = candidate.session.infer(batch)
    assert (logits.dtype, logits.shape) == (np.float32, right.shape)
    budget = BUDGETS[candidate.session.info.precision]
    assert np.abs(logits - right).max() <= budget.relative_error * right.std()


def test_a_baseline_that_cannot_be_tried_says_what_is_missing(
    tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {why_no_baseline(one, None) for one in THIRD_PARTY_BASELINES} == {"no run was given (--run)"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(third_party.shutil, "which", lambda name: None)
    reasons = {
        one.engine: why_no_baseline(one, tiny_run) for one in THIRD_PARTY_BASELINES if one.device == "cpu"
    }
    assert reasons == {
        "pytorch-channels-last": None,
        "pytorch-compiled": "torch.compile needs g++, which is not installed",
        "stock-onnxruntime": "onnxruntime, onnxscript is not installed (extra third-party)",
        "stock-openvino": "openvino, onnxscript is not installed (extra third-party)",
        "stock-ncnn": "ncnn, pnnx, onnxscript is not installed (extra third-party)",
        "stock-mnn": "MNN, onnxscript is not installed (extra third-party)",
        "stock-opencv": "onnxscript is not installed (extra third-party)",
    }


def test_what_a_stock_tool_raises_becomes_the_rows_reason(
    tiny_bundle: Bundle, tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("\n  graph was not understood\nmore")

    monkeypatch.setattr(candidates, "why_no_baseline", lambda variant, run: None)
    monkeypatch.setattr(candidates, "open_baseline", fail)
    candidate = open_candidate(COMPILED, tiny_bundle, tiny_run, 1)
    assert (candidate.session, candidate.failed) == (None, True)
    assert candidate.reason == "did not open: graph was not understood"


def test_a_runtime_of_one_image_gets_a_batch_image_by_image() -> None:
    seen = []

    def infer(batch: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        seen.append(batch.shape)
        return np.asarray(batch[:, :1] * 2)

    batch = np.arange(24, dtype=np.float32).reshape(3, 2, 2, 2)
    session = StockSession(infer, "stock-x", "1", one_by_one=True)
    np.testing.assert_array_equal(session.infer(batch), batch[:, :1] * 2)
    assert seen == [(1, 2, 2, 2)] * 3
    assert session.info.versions == {"x": "1"}
