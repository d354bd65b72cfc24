from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.golden import golden_report
from tumorseg_export.bundle.export import export_run
from tumorseg_export.checkpoint.context import ExportContext
from tumorseg_export.onnx import export as onnx_export
from tumorseg_export.targets import mnn as mnn_export
from tumorseg_export.targets.mnn import with_identifier
from tumorseg_export.targets.registry import TARGETS
from tumorseg_export.targets.validate_parity import read_certificate, refuse_breach, require_validators
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BackendError, BundleError, CheckFailedError, ParityError
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.parity.budget import BUDGETS, Budget
from tumorseg_train.networks.run import Run

if importlib.util.find_spec("MNN") is None:
    pytest.skip("MNN is not installed", allow_module_level=True)


@pytest.mark.slow
def test_the_bundle_holds_one_file_proven_under_both_backends(full_bundle: Bundle) -> None:
    artefact = full_bundle.artefact("mnn", "fp32")
    assert artefact.files == ("model.mnn",)
    assert {"MNN", "torch", "onnx"} <= set(artefact.tools)
    assert [(v.backend, v.status) for v in artefact.parity] == [("mnn", "passed"), ("mnn-exact", "passed")]
    reports = read_certificate(full_bundle, artefact)["reports"]
    assert [(report["backend"], report["batch_size"], report["threads"]) for report in reports] == [
        ("mnn", 4, None), ("mnn", 4, None), ("mnn", 4, 1), ("mnn-exact", 4, None), ("mnn-exact", 4, None),
    ]  # fmt: skip
    # On a network as small as this both are rounding: which is smaller differs between processors.
    exact = [image for report in reports if report["backend"] == "mnn-exact" for image in report["images"]]
    assert max(image["relative_error"] for image in exact) < 5e-5


@pytest.mark.slow
def test_the_exact_target_is_for_the_exact_backend_alone(
    full_bundle: Bundle, tiny_run: Run, tmp_path: Path
) -> None:
    exact = export_run(tiny_run, tmp_path / "bundle", targets=["onnx", "mnn-exact"])
    artefact = exact.artefact("mnn-exact", "fp32")
    assert [(v.backend, v.status) for v in artefact.parity] == [("mnn-exact", "passed")]
    assert exact.files[artefact.file].sha256 == full_bundle.files["model.mnn"].sha256
    Segmenter.open(exact, backend="mnn-exact", self_test=True)
    with pytest.raises(BundleError, match="has no fp32 mnn artefact, it has onnx fp32, mnn-exact fp32"):
        open_session(exact, backend="mnn")


def test_a_network_too_rough_for_mnn_is_refused_with_the_exact_target_as_remedy(
    full_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_session(full_bundle, backend="mnn") as session:  # type: ignore[attr-defined]
        report = golden_report(full_bundle, session, "model.mnn")
    strict = Budget(relative_error=1e-9, free_pixels=0, flips_per_border=0.0)
    monkeypatch.setitem(BUDGETS, "fp32", strict)
    assert report.passed
    with open_session(full_bundle, backend="mnn") as session:  # type: ignore[attr-defined]
        report = golden_report(full_bundle, session, "model.mnn")
    with pytest.raises(ParityError, match=r"under mnn on cpu .*: take the target mnn-exact in its place"):
        refuse_breach(report)


def test_the_identifier_is_the_hashs() -> None:
    content = b"before 14f5a74d-879a-44fc-adb6-d47c8d18e6fb after"
    first, second = (with_identifier(content, digit * 64) for digit in "12")
    assert first == b"before 11111111-1111-4111-9111-111111111111 after"
    assert first != second
    with pytest.raises(CheckFailedError, match="holds 2 identifiers, expected 1"):
        with_identifier(content * 2, "1" * 64)


@pytest.mark.process
def test_the_packages_own_converter_would_start_pip(run_guarded: Callable[..., list[str]]) -> None:
    """The guard sees what it must see. If this fails, MNN has changed."""
    assert any("pip install" in line for line in run_guarded("import MNN.tools.mnnconvert"))


@pytest.mark.slow
def test_a_converter_that_fails_is_reported(
    small_context: ExportContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_export.make(small_context, tmp_path)
    monkeypatch.setattr(mnn_export, "write_folded", lambda graph, to, passes: to.write_bytes(b"no graph"))
    with pytest.raises(CheckFailedError, match=r"the converter of MNN ended with status .*model.mnn"):
        mnn_export.make(small_context, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [onnx_export.FILE]


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"MNN is not installed.*pip install 'tumorseg\[export,mnn\]'"):
        require_validators("mnn", TARGETS["mnn"])
