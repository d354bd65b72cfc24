"""`tumorseg build` on a fake device: the real one is in tests/gpu."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from fakes.mean_bundle import make_mean_bundle
from fakes.tensorrt import FakeTensorRt
from fakes.tensorrt_device import that_builds
from tumorseg_export.commands.build import build
from tumorseg_export.engine import build as build_module
from tumorseg_export.engine.build import DeviceOptions, build_for_device
from tumorseg_runtime.backends import BACKENDS
from tumorseg_runtime.backends import tensorrt as backend
from tumorseg_runtime.backends.tensorrt import FORMS
from tumorseg_runtime.bundle.bundle import Bundle, sha256_of
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError, ParityError
from tumorseg_runtime.device.engines import Profile, read_key, record_of
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.parity.reference import load_golden
from tumorseg_runtime.processing.postprocess import resize_masks

OPTIONS = DeviceOptions(profile=Profile(1, 2, 4), workspace_mb=512)


def quiet(line: str) -> None:
    """Takes lines of progress that a test does not look at."""


@pytest.fixture
def mean_bundle(tmp_path: Path) -> Bundle:
    """Sealed, of the fake TensorRT's network."""
    return make_mean_bundle(tmp_path / "bundle")


@pytest.fixture
def trt() -> Iterator[FakeTensorRt]:
    with that_builds() as fake:
        yield fake


def test_an_engine_is_built_proven_and_kept(mean_bundle: Bundle, trt: FakeTensorRt, tmp_path: Path) -> None:
    folder, said = tmp_path / "device", []
    results = build_for_device(mean_bundle, folder, OPTIONS, said.append)
    key = read_key(results.path)
    assert (key.bundle_sha256, key.tool_version, key.capabilities) == (mean_bundle.digest(), "10.3.0", (87,))
    assert (key.gpu, key.profile, key.workspace_mb) == ("Fake GPU", Profile(1, 2, 4), 512)
    (line,) = said  # a phase is told of after five seconds
    assert line.startswith("building for Fake GPU (sm_87) with TensorRT 10.3.0")
    stem = results.path.stem
    assert sorted(os.listdir(folder)) == [
        "tensorrt-10.3.0-sm87.timing", f"{stem}.engine", f"{stem}.engine.json", f"{stem}.parity.json",
    ]  # fmt: skip
    certificate = json.loads((folder / f"{stem}.parity.json").read_text())
    assert certificate["sha256"] == sha256_of(results.path)
    assert [report["batch_size"] for report in certificate["reports"]] == [3]
    assert all(report["passed"] and report["device"] == "cuda" for report in certificate["reports"])
    assert Bundle.open(mean_bundle.root) == mean_bundle
    session = backend.open_session(BACKENDS["tensorrt"], mean_bundle, "cuda", "fp16", None, folder)
    assert session.infer(np.ones((2, 3, 64, 64), np.float32)).tolist() == np.ones((2, 1, 64, 64)).tolist()


def test_the_same_engine_is_not_built_twice_and_the_timing_cache_is_used(
    mean_bundle: Bundle, trt: FakeTensorRt, tmp_path: Path
) -> None:
    first = build_for_device(mean_bundle, tmp_path / "device", OPTIONS, quiet)
    trt.calls.clear()
    again = build_for_device(mean_bundle, tmp_path / "device", OPTIONS, quiet)
    assert (again.path, again.seconds, trt.calls) == (first.path, 0.0, [])
    other = dataclasses.replace(OPTIONS, profile=Profile(1, 1, 1))
    assert build_for_device(mean_bundle, tmp_path / "device", other, quiet).path != first.path
    assert ("timing cache", b" timed", False) in trt.calls


def test_an_engine_is_tuned_for_the_smallest_batch_and_for_another(
    mean_bundle: Bundle, trt: FakeTensorRt, tmp_path: Path
) -> None:
    build_for_device(mean_bundle, tmp_path, OPTIONS, quiet)
    session = backend.open_session(BACKENDS["tensorrt"], mean_bundle, "cuda", "fp16", None, tmp_path)
    trt.executed.clear()
    for count in (1, 2, 4, 1):
        session.infer(np.zeros((count, 3, 64, 64), np.float32))
    assert trt.executed == [(1, 1), (0, 2), (0, 4), (1, 1)]
    one = dataclasses.replace(OPTIONS, profile=Profile(1, 1, 4))  # one profile is both
    build_for_device(mean_bundle, tmp_path / "one", one, quiet)
    session = backend.open_session(BACKENDS["tensorrt"], mean_bundle, "cuda", "fp16", None, tmp_path / "one")
    assert len(session._execution.contexts) == 1


def test_an_engine_without_small_batches_is_proven_and_serves_them(
    mean_bundle: Bundle, trt: FakeTensorRt, tmp_path: Path
) -> None:
    """Three golden images, and an engine for four or more."""
    results = build_for_device(mean_bundle, tmp_path, DeviceOptions(profile=Profile(4, 4, 8)), quiet)
    assert results.flipped_pixels == 0
    session = backend.open_session(BACKENDS["tensorrt"], mean_bundle, "cuda", "fp16", None, tmp_path)
    one = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    np.testing.assert_allclose(session.infer(one), one.mean(axis=1, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize(("form", "planes"), [("onnx-deploy", 3), ("onnx-deploy-gray", 1)])
def test_a_deploy_form_becomes_an_engine_that_gives_masks(
    mean_bundle: Bundle, trt: FakeTensorRt, tmp_path: Path, form: str, planes: int
) -> None:
    results = build_for_device(mean_bundle, tmp_path, dataclasses.replace(OPTIONS, form=form), quiet)
    assert (results.key.precision, results.flipped_pixels) == ("fp32", 0)
    name = f"tensorrt{form.removeprefix('onnx')}"
    segmenter = Segmenter.open(
        mean_bundle,
        backend=name,
        device="cuda",
        device_folder=tmp_path,
        batch_size=4,
        self_test="full",
        preprocess="cpu",  # the fake has no streams
        own_process=False,
    )
    assert segmenter.info.backend == name
    assert (segmenter.gives_masks, segmenter.channels) == (True, planes)
    golden = load_golden(mean_bundle)
    for one, found in zip(golden, segmenter.predict([one.pixels for one in golden]), strict=True):
        expected = (one.logits >= 0).astype(np.uint8)
        assert np.array_equal(
            found.masks, resize_masks(expected, mean_bundle.contract, *one.pixels.shape[:2])
        )
    with pytest.raises(
        BackendError, match=r"has no fp16 engine of bundle .* \(1 of others\): tumorseg build"
    ):
        backend.open_session(BACKENDS["tensorrt"], mean_bundle, "cuda", "fp16", None, tmp_path)
    other = next(one for one in FORMS if one != form)
    with pytest.raises(BackendError, match=rf"has no fp32 {other} engine .*--form {other}"):
        backend.open_session(
            BACKENDS[f"tensorrt{other.removeprefix('onnx')}"], mean_bundle, "cuda", "fp32", None, tmp_path
        )
    with pytest.raises(BundleError, match=rf"lies in a device folder, none was given .*--form {form}"):
        backend.open_session(BACKENDS[name], mean_bundle, "cuda", "fp32", None)


def test_an_altered_engine_is_not_used_again(mean_bundle: Bundle, trt: FakeTensorRt, tmp_path: Path) -> None:
    results = build_for_device(mean_bundle, tmp_path / "device", OPTIONS, quiet)
    results.path.write_bytes(b"rot")
    with pytest.raises(BundleError, match="altered"):
        build_for_device(mean_bundle, tmp_path / "device", OPTIONS, quiet)


def test_an_engine_that_decides_otherwise_is_removed(
    mean_bundle: Bundle, trt: FakeTensorRt, tmp_path: Path
) -> None:
    trt.gain = 1.5
    with pytest.raises(ParityError, match=r"decides other than PyTorch on Fake GPU and was removed"):
        build_for_device(mean_bundle, tmp_path / "device", OPTIONS, quiet)
    assert os.listdir(tmp_path / "device") == ["tensorrt-10.3.0-sm87.timing"]


def test_a_failed_build_leaves_no_engine(mean_bundle: Bundle, trt: FakeTensorRt, tmp_path: Path) -> None:
    trt.fails = "Error Code 2: OutOfMemory"
    with pytest.raises(BackendError, match=r"out of memory.*workspace was 512 MiB: set a smaller --work"):
        build_for_device(mean_bundle, tmp_path / "device", OPTIONS, quiet)
    assert os.listdir(tmp_path / "device") == []


def test_without_a_driver_tensorrt_is_not_touched(
    mean_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_module, "why_no_driver", lambda *ordinal: "no NVIDIA driver")
    monkeypatch.setattr(build_module, "load_tool", lambda tool: pytest.fail(f"{tool} was imported"))
    with pytest.raises(BackendError, match=r"here: no NVIDIA driver; expected .*run this on the device"):
        build_for_device(mean_bundle, tmp_path / "device", OPTIONS, quiet)
    assert not (tmp_path / "device").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (DeviceOptions(precision="fp32"), BundleError, "has no fp32 onnx artefact"),
        (DeviceOptions("fp16", "onnx-deploy"), BundleError, "has no fp16 onnx-deploy artefact"),
        (DeviceOptions(workspace_mb=0), InputError, "workspace is 0 MiB"),
        (DeviceOptions(device="tensorrt"), InputError, "device is 'tensorrt', expected cuda, or cuda:1"),
    ],
)
def test_wrong_choices(
    mean_bundle: Bundle, trt: FakeTensorRt, tmp_path: Path, options: DeviceOptions, error: type[Exception],
    message: str,
) -> None:  # fmt: skip
    with pytest.raises(error, match=message):
        build_for_device(mean_bundle, tmp_path / "device", options, quiet)


def test_the_command_prints_what_it_made(mean_bundle: Bundle, trt: FakeTensorRt, tmp_path: Path) -> None:
    folder = tmp_path / "device"
    arguments = [str(mean_bundle.root), "--device-folder", str(folder), "--batch", "1,2,4"]
    done = CliRunner().invoke(build, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    (path,) = folder.glob("*.engine")
    assert done.stdout.splitlines()[-1].startswith(f"{path}: 0.0 MB, built in ")
    values: dict[str, Any] = json.loads(
        CliRunner().invoke(build, [*arguments, "--json"], catch_exceptions=False).stdout
    )
    assert (values["engine"], values["key"]) == (str(path), read_key(path).digest())
    assert (values["bytes"], values["flipped_pixels"]) == (path.stat().st_size, 0)
    assert record_of(path).is_file()


@pytest.mark.process
def test_the_command_loads_neither_torch_nor_onnx() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'onnx', 'onnxscript', 'tensorrt'))); "
        "import tumorseg_export.commands.build"
    )
    subprocess.run([sys.executable, "-c", code], timeout=120, check=True)
