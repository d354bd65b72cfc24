from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.cli import diagnostics as module
from tumorseg_runtime.cli.diagnostics import MISSING, OK, WRONG, Finding, examine
from tumorseg_runtime.cli.doctor import doctor
from tumorseg_runtime.core.errors import CheckFailedError
from tumorseg_runtime.device.cache import Entry, write_ranking


def run(*args: object) -> Result:
    return CliRunner().invoke(doctor, [str(arg) for arg in args])


def find(findings: list[Finding], topic: str) -> Finding:
    (found,) = [finding for finding in findings if finding.topic == topic]
    return found


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Versions of the distributions that seem to be installed."""
    versions = {"onnxruntime": "1.32.0", "opencv-python-headless": "5.0"}

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    return versions


@pytest.mark.usefixtures("installed")
def test_this_machine_is_in_order_and_what_is_missing_has_a_remedy() -> None:
    findings = examine()
    assert find(findings, "onnxruntime").detail == "onnxruntime 1.32.0"
    assert find(findings, "opencv resize").status == OK
    assert find(findings, "backend onnxruntime cpu").status == OK
    assert find(findings, "ncnn") == Finding("ncnn", MISSING, "not installed", "extra ncnn")
    assert all(finding.remedy for finding in findings if finding.status != OK)
    result = run()
    assert result.exit_code == 0, result.output
    assert all(finding.topic in result.output for finding in findings)


def test_every_extra_that_is_named_exists() -> None:
    known = {
        name.replace("_", "-") for name in importlib.metadata.metadata("tumorseg").get_all("Provides-Extra")
    }
    named = {*module.EXTRAS.values(), *module.PACKAGES.values()}
    words = {word for text in named for word in re.split(r", and .*|, | or ", text) if word}
    assert len(words) > 5
    assert words <= set(known)


def test_tensorrt_is_found_under_the_names_of_its_wheels(installed: dict[str, str]) -> None:
    installed["tensorrt-cu12"] = "10.13.2"
    assert find(examine(), "tensorrt") == Finding("tensorrt", OK, "10.13.2")


def test_both_wheels_of_onnx_runtime_at_once_are_wrong(installed: dict[str, str]) -> None:
    installed["onnxruntime-gpu"] = "1.31.0"
    found = find(examine(), "onnxruntime")
    assert found.status == WRONG
    assert found.detail == "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.0 share the module onnxruntime"
    assert found.remedy.startswith("pip uninstall onnxruntime onnxruntime-gpu, then install one")
    result = run("--json")
    assert isinstance(result.exception, CheckFailedError)
    assert str(result.exception).startswith("to be put right: onnxruntime: ")
    assert {
        "topic": "ncnn",
        "status": MISSING,
        "detail": "not installed",
        "remedy": "extra ncnn",
    } in json.loads(result.stdout)


@pytest.mark.usefixtures("installed")
def test_an_opencv_that_differs_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "resize_engine", lambda: "numpy")
    found = find(examine(), "opencv resize")
    assert found.status == WRONG
    assert "differs from the rule" in found.detail


@pytest.mark.usefixtures("installed")
def test_without_a_driver_the_driver_is_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    from tumorseg_runtime.backends import onnxruntime

    for place in (module, onnxruntime):
        monkeypatch.setattr(place, "why_no_driver", lambda *ordinal: "no NVIDIA driver")
    monkeypatch.setattr(module, "gpus", lambda: ())
    findings = examine()
    assert find(findings, "gpu").remedy == module.NO_DRIVER_REMEDY
    cuda = find(findings, "backend onnxruntime cuda")
    assert (cuda.status, cuda.detail, cuda.remedy) == (MISSING, "no NVIDIA driver", module.NO_DRIVER_REMEDY)


@pytest.mark.usefixtures("installed")
def test_a_bundle_and_its_device_folder(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = Bundle.open(small_bundle)
    findings = examine(small_bundle)
    assert find(findings, "bundle").detail.endswith("whole: onnx fp32")
    assert find(findings, "device folder").status == MISSING
    folder = tmp_path / "device"
    folder.mkdir()
    assert find(examine(small_bundle, folder), "ranking").status == MISSING
    write_ranking(folder, bundle, (Entry("ncnn", "cpu", "fp32", 1, {}, "passed", 0.1),))
    assert find(examine(small_bundle, folder), "ranking").detail == "ncnn cpu fp32 (the fastest first)"
    (folder / "ranking.json").write_text("{}")
    assert find(examine(small_bundle, folder), "ranking").status == WRONG


@pytest.mark.usefixtures("installed")
def test_an_engine_of_another_gpu_is_wrong(
    small_bundle: Path, tmp_path: Path, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tumorseg_runtime.device.driver import GpuFacts
    from tumorseg_runtime.device.engines import EngineKey, Profile, write_engine

    installed["tensorrt"] = "10.3.0"
    key = EngineKey(
        onnx_sha256="0" * 64, bundle_sha256=None, precision="fp16", tool="tensorrt", tool_version="10.3.0",
        capabilities=(87,), gpu="Orin", profile=Profile(1, 1, 4), workspace_mb=None,
    )  # fmt: skip
    write_engine(tmp_path / "a.engine", b"engine", key)
    assert find(examine(small_bundle, tmp_path), "engine a.engine").status == MISSING
    for gpu, status in (
        (GpuFacts("Orin", "8.7", "12.6", None), OK),
        (GpuFacts("T4", "7.5", "12.6", None), WRONG),
    ):
        monkeypatch.setattr(module, "gpus", lambda gpu=gpu: (gpu,))
        monkeypatch.setattr(module, "why_no_driver", lambda *ordinal: None)
        found = find(examine(small_bundle, tmp_path), "engine a.engine")
        assert found.status == status, found
    assert "is for sm_87, this GPU (T4) is sm_75" in found.detail
    monkeypatch.setattr(module, "gpus", lambda: (GpuFacts("Orin", "8.7", "12.6", None),))
    installed["tensorrt"] = "10.7.0"
    assert "is for tensorrt 10.3.0, 10.7.0" in find(examine(small_bundle, tmp_path), "engine a.engine").detail


@pytest.mark.usefixtures("installed")
def test_every_gpu_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    from tumorseg_runtime.device.driver import GpuFacts

    two = tuple(GpuFacts(name, "8.9", "13.0", None) for name in ("L4", "L40"))
    monkeypatch.setattr(module, "gpus", lambda: two)
    monkeypatch.setattr(module, "why_no_driver", lambda *ordinal: None)
    findings = examine()
    assert find(findings, "gpu").detail.startswith("L4, compute capability 8.9")
    assert find(findings, "gpu 1").detail.startswith("L40, ")


@pytest.mark.fault
@pytest.mark.usefixtures("installed")
def test_a_damaged_bundle_is_wrong(small_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(small_bundle, tmp_path / "copy"))
    (copy / "more").write_text("x")
    found = find(examine(copy), "bundle")
    assert found.status == WRONG
    assert "more does not belong to it" in found.detail


def test_every_backend_has_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from tumorseg_runtime.backends import BACKENDS

    assert {backend for backend, _ in module.EXTRAS} >= set(BACKENDS)
    fallback: Callable[..., str | None] = lambda *_: "reason"  # noqa: E731
    monkeypatch.setattr(module, "why_unavailable", fallback)
    assert all(f.remedy for f in module._backends() if f.status == MISSING)
