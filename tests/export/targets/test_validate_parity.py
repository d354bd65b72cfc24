"""What cannot run here is unverified with its reason, what runs and is wrong is refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from tumorseg_export.checkpoint.context import ExportContext
from tumorseg_export.onnx import export as onnx_export
from tumorseg_export.references.golden_images import write_golden
from tumorseg_export.targets.registry import TARGETS, Target
from tumorseg_export.targets.validate_parity import read_certificate, validate_parity
from tumorseg_runtime.backends import onnxruntime as backend
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BackendError

WHY = r"model\.onnx|the GPU cannot be used"  # without a driver the GPU fails before the provider does


@pytest.fixture
def with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose driver answers and whose onnxruntime claims CUDA, and cannot use it."""
    monkeypatch.setattr(backend, "why_unavailable", lambda device: None)


@pytest.fixture
def draft(small_context: ExportContext, tmp_path: Path) -> Bundle:
    """A bundle on its way. Its network gives logits around 0: a threshold far from them."""
    artefact = onnx_export.make(small_context, tmp_path).artefact
    write_golden(small_context.golden, tmp_path)
    contract = dataclasses.replace(small_context.contract, threshold=0.999)
    names = tuple(item.name for item in small_context.golden)
    return Bundle(tmp_path, "small", contract, (artefact,), names, {}, {}, {}, {})


@pytest.mark.usefixtures("with_a_gpu")
def test_a_provider_that_does_not_open_the_artefact_leaves_it_unverified(draft: Bundle) -> None:
    proven = validate_parity(draft, draft.artefacts[0], TARGETS["onnx"])
    cpu, cuda, tensorrt = proven.parity
    assert (cpu.status, cuda.status, tensorrt.status) == ("passed", "unverified", "unverified")
    assert re.search(WHY, cuda.detail)
    assert {report["device"] for report in read_certificate(draft, proven)["reports"]} == {"cpu"}


@pytest.mark.usefixtures("with_a_gpu")
def test_the_first_proof_must_run(draft: Bundle) -> None:
    with pytest.raises(BackendError, match=WHY):
        validate_parity(draft, draft.artefacts[0], Target("unused", (("onnxruntime", "cuda"),)))
