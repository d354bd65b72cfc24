from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tumorseg_export.bundle.export import export_run
from tumorseg_export.checkpoint.context import ExportContext
from tumorseg_export.onnx import export as onnx_export
from tumorseg_export.targets import ncnn as ncnn_export
from tumorseg_export.targets.registry import TARGETS
from tumorseg_export.targets.validate_parity import read_certificate, require_validators
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BackendError, BundleError, CheckFailedError, InputError
from tumorseg_train.networks.run import Run

for package in ("pnnx", "ncnn"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)
FILES = (ncnn_export.GRAPH, ncnn_export.WEIGHTS)


def make(context: ExportContext, folder: Path) -> list[bytes]:
    folder.mkdir()
    onnx_export.make(context, folder)
    ncnn_export.make(context, folder)
    return [(folder / file).read_bytes() for file in FILES]


@pytest.mark.slow
def test_the_bundle_holds_it_proven_in_single_images_and_batches(full_bundle: Bundle) -> None:
    artefact = full_bundle.artefact("ncnn", "fp32")
    assert artefact.files == FILES
    assert {"pnnx", "torch", "onnx"} <= set(artefact.tools)
    assert [(v.backend, v.device, v.status) for v in artefact.parity] == [("ncnn", "cpu", "passed")]
    certificate = read_certificate(full_bundle, artefact)
    assert certificate["weights"] == {"file": FILES[1], "sha256": full_bundle.files[FILES[1]].sha256}
    assert [report["batch_size"] for report in certificate["reports"]] == [4, 4]
    for report in certificate["reports"]:
        assert all(0 < image["relative_error"] < 1e-4 for image in report["images"])


@pytest.mark.slow
def test_weights_are_fp32_and_of_this_network(small_context: ExportContext, tmp_path: Path) -> None:
    graph, weights = make(small_context, tmp_path / "first")
    parameters = sum(p.numel() for n, p in small_context.model.named_parameters() if n.endswith(".weight"))
    assert len(weights) > 0.9 * 4 * parameters
    assert graph.startswith(b"7767517\n")
    assert b"/" not in graph  # no path of this machine
    with torch.no_grad():
        small_context.model.head.bias.add_(1)
    assert make(small_context, tmp_path / "second")[1] != weights


@pytest.mark.slow
@pytest.mark.fault
def test_changed_weights_are_refused(full_bundle: Bundle, tmp_path: Path) -> None:
    root = Path(shutil.copytree(full_bundle.root, tmp_path / "bundle"))
    data = bytearray((root / FILES[1]).read_bytes())
    data[len(data) // 2] ^= 1
    (root / FILES[1]).write_bytes(data)
    with pytest.raises(BundleError, match=r"model.ncnn.bin has the right size but other content"):
        Bundle.open(root)


def test_it_needs_the_onnx_target(tiny_run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="target ncnn is made from onnx: add it"):
        export_run(tiny_run, tmp_path / "bundle", targets=["ncnn"])


@pytest.mark.slow
def test_a_converter_that_fails_is_reported(
    small_context: ExportContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_export.make(small_context, tmp_path)
    monkeypatch.setattr(ncnn_export, "write_folded", lambda graph, to, passes: to.write_bytes(b"no graph"))
    with pytest.raises(CheckFailedError, match=r"pnnx ended with status .* without model.ncnn.param"):
        ncnn_export.make(small_context, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [onnx_export.FILE]


def test_missing_packages_are_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    remedy = r"pip install 'tumorseg\[export,ncnn\]'"
    for package in ("ncnn", "pnnx"):
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, gone=package: None if name == gone else find(name)
        )
        with pytest.raises(BackendError, match=f"{package}.*not installed.*{remedy}"):
            require_validators("ncnn", TARGETS["ncnn"])
    with pytest.raises(BackendError, match=remedy):
        ncnn_export.pnnx_program()


@pytest.mark.slow
def test_session_of_the_bundle_has_the_contracts_shape(full_bundle: Bundle) -> None:
    channels, height, width = (
        getattr(full_bundle.contract, side) for side in ("channels", "height", "width")
    )
    logits = open_session(full_bundle, backend="ncnn").infer(
        np.zeros((2, channels, height, width), np.float32)
    )
    assert logits.shape == (2, 1, height, width)


def test_layers_that_ncnn_lacks_are_named() -> None:
    known = "7767517\n2 2\nInput in0 0 1 in0\nConvolution conv 1 1 in0 out0 0=8\n"
    ncnn_export.require_layers(known)
    strange = known + "Tensor.reshape view 1 1 out0 a\nGatherND gather 1 1 a b\nGatherND other 1 1 b c\n"
    with pytest.raises(
        CheckFailedError, match=r"has no layer Tensor\.reshape, GatherND, expected .* leave that out"
    ):
        ncnn_export.require_layers(strange)
