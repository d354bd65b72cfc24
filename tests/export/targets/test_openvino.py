from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from tumorseg_export.checkpoint.context import ExportContext
from tumorseg_export.onnx import export as onnx_export
from tumorseg_export.references.golden_images import write_golden
from tumorseg_export.targets import openvino as openvino_export
from tumorseg_export.targets.registry import TARGETS
from tumorseg_export.targets.validate_parity import read_certificate, require_validators, validate_parity
from tumorseg_runtime.backends import openvino as backend
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BackendError, CheckFailedError

if backend.why_unavailable("cpu"):
    pytest.skip(f"{backend.why_unavailable('cpu')}", allow_module_level=True)
FILES = (openvino_export.GRAPH, openvino_export.WEIGHTS)


@pytest.mark.slow
def test_the_bundle_holds_it_proven_where_this_machine_can(full_bundle: Bundle) -> None:
    artefact = full_bundle.artefact("openvino", "fp32")
    assert artefact.files == FILES
    assert {"openvino", "torch", "onnx"} <= set(artefact.tools)
    for verdict in artefact.parity:
        reason = backend.why_unavailable(verdict.device)
        assert verdict.status == ("unverified" if reason else "passed")
    assert [verdict.device for verdict in artefact.parity] == ["cpu", "gpu", "npu"]
    reports = [one for one in read_certificate(full_bundle, artefact)["reports"] if one["device"] == "cpu"]
    assert [report["batch_size"] for report in reports] == [4, 4]  # golden images, then those for calibration
    assert all(0 < image["relative_error"] < 1e-4 for report in reports for image in report["images"])


@pytest.mark.slow
def test_the_bundle_says_which_passes_its_graph_went_through(full_bundle: Bundle) -> None:
    assert full_bundle.model["openvino"]["passes"]["upsampling as ConvTranspose"] > 0


@pytest.mark.slow
def test_bfloat16_is_an_artefact_of_its_own_and_proven_in_its_precision(
    small_context: ExportContext, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    # noise has logits around 0: a threshold far from them, so that the errors alone are judged
    contract = dataclasses.replace(small_context.contract, threshold=0.999)
    onnx_export.make(small_context, tmp_path)
    results = TARGETS["openvino-bf16"].make(small_context, tmp_path)
    write_golden(small_context.golden, tmp_path)
    names = tuple(item.name for item in small_context.golden)
    draft = tiny_bundle.draft(root=tmp_path, contract=contract, artefacts=(results.artefact,), golden=names)
    proven = validate_parity(draft, results.artefact, TARGETS["openvino-bf16"])
    assert proven.files == ("model.bf16.xml", "model.bf16.bin")
    cpu, gpu = proven.parity
    if "BF16" not in backend.load().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert cpu.status == "unverified"
        assert "expected BF16 for bf16" in cpu.detail
        pytest.skip("this CPU has no bfloat16 instructions")
    assert (cpu.status, gpu.status) == ("passed", "unverified")
    report = read_certificate(draft, proven)["reports"][0]
    assert report["precision"] == "bf16"
    errors = [image["relative_error"] for image in report["images"]]
    assert 1e-4 < max(errors) < report["budget"]["relative_error"]  # it really computes in bfloat16


@pytest.mark.slow
def test_bfloat16_on_a_cpu_without_is_unverified_and_says_why(
    small_context: ExportContext, tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_export.make(small_context, tmp_path)
    artefact = TARGETS["openvino-bf16"].make(small_context, tmp_path).artefact
    draft = tiny_bundle.draft(root=tmp_path, contract=small_context.contract, artefacts=(artefact,))
    monkeypatch.setattr(
        backend.load().Core, "get_property", lambda self, device, name: ["FP32", "INT8"], raising=True
    )
    cpu = validate_parity(draft, artefact, TARGETS["openvino-bf16"]).parity[0]
    assert cpu.status == "unverified"
    assert cpu.detail.startswith("openvino's CPU has FP32, INT8, expected BF16 for bf16: choose another")


def test_weights_are_fp32(full_bundle: Bundle) -> None:
    assert full_bundle.files[FILES[1]].bytes > 0.95 * full_bundle.files["model.onnx"].bytes


@pytest.mark.slow
def test_a_graph_that_cannot_be_read_is_reported(
    small_context: ExportContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_export.make(small_context, tmp_path)
    monkeypatch.setattr(
        openvino_export, "write_folded", lambda graph, to, passes: to.write_bytes(b"no graph")
    )
    with pytest.raises(CheckFailedError, match=r"openvino cannot convert model.onnx"):
        openvino_export.make(small_context, tmp_path)


def test_a_missing_package_is_named_with_its_extra(
    small_context: ExportContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    remedy = r"pip install 'tumorseg\[export,openvino\]'"
    with pytest.raises(BackendError, match=f"openvino is not installed.*{remedy}"):
        require_validators("openvino", TARGETS["openvino"])
    with pytest.raises(BackendError, match=remedy):
        openvino_export.make(small_context, tmp_path)
