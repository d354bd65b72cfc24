from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tumorseg_runtime.backends import onnxruntime as backend
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError
from tumorseg_runtime.device.driver import why_no_driver
from tumorseg_runtime.parity.reference import load_golden

pytest.importorskip("onnxruntime")
Maker = Callable[..., Path]
CUDA = "CUDAExecutionProvider"


def test_the_cpu_gives_the_golden_logits(small_bundle: Path) -> None:
    bundle = Bundle.open(small_bundle)
    session = open_session(bundle, threads=1)
    assert (session.info.backend, session.info.device, session.info.precision) == (
        "onnxruntime",
        "cpu",
        "fp32",
    )
    assert session.input.max_batch is None
    golden = load_golden(bundle)
    logits = session.infer(np.stack([item.tensor for item in golden]))
    np.testing.assert_allclose(logits, np.stack([item.logits for item in golden]), atol=1e-4)


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_device_that_is_not_there_is_an_error_and_never_the_cpu(
    small_bundle: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(small_bundle)
    monkeypatch.setattr(backend, "why_no_driver", lambda *ordinal: "no NVIDIA driver")
    with pytest.raises(
        BackendError, match=f"onnxruntime on '{device}' is not available: no NVIDIA driver; .*gpu-cu"
    ):
        open_session(bundle, device=device)
    monkeypatch.setattr(backend, "why_no_driver", lambda *ordinal: None)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BackendError, match="was built without"):
        open_session(bundle, device=device)


@pytest.mark.skipif(why_no_driver() is None, reason="this machine has an NVIDIA driver")
def test_a_session_that_fell_back_is_refused(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    bundle = Bundle.open(small_bundle)
    real = onnxruntime.InferenceSession

    def falls_back(path: str, options: object, **asked: object) -> object:
        return real(path, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", falls_back)
    with pytest.raises(
        BackendError, match="gave CPUExecutionProvider, expected CUDAExecutionProvider: it fell back"
    ):
        backend.open_file(bundle.root / "model.onnx", "cuda", None)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "tflite"}, InputError, "backend is 'tflite', expected one of onnxruntime"),
        ({"device": "npu"}, InputError, "device is 'npu', expected one of cpu, cuda, tensorrt"),
        ({"threads": 0}, InputError, "threads is 0, expected 1 or more"),
        ({"precision": "fp16"}, BundleError, "has no fp16 onnx artefact"),
    ],
)
def test_wrong_choices(
    small_bundle: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        open_session(Bundle.open(small_bundle), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, r"model.onnx takes tensor\(float16\)"),
        ({"channels": 1}, r"expected one tensor\(float\) \(N, 3, 64, 64\)"),
    ],
)
def test_a_file_that_is_not_the_contracts_network_is_refused(
    make_bundle: Maker, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    bundle = Bundle.open(make_bundle(tmp_path / "bundle", **options))
    with pytest.raises(BundleError, match=message):
        open_session(bundle)


def test_a_file_that_is_no_network_is_a_backend_error(small_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes((small_bundle / "model.onnx").read_bytes()[:100])
    with pytest.raises(BackendError, match=r"cannot open model.onnx on 'cpu'"):
        backend.open_file(path, "cpu", None)


def test_a_failing_inference_is_a_backend_error(make_bundle: Maker, tmp_path: Path) -> None:
    bundle = Bundle.open(make_bundle(tmp_path / "bundle", batch=1))
    session = open_session(bundle)
    assert session.infer(np.zeros((1, 3, 64, 64), np.float32)).shape == (1, 1, 64, 64)
    with pytest.raises(BackendError, match=r"failed on a batch of shape \(2, 3, 64, 64\)"):
        session.infer(np.zeros((2, 3, 64, 64), np.float32))


def test_a_missing_package_is_named_with_its_extra(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match=r"onnxruntime is not installed.*install the extra \(cpu\)"):
        open_session(Bundle.open(small_bundle))


def test_several_classes_and_one_channel(make_bundle: Maker, tmp_path: Path) -> None:
    contract = Contract(height=64, width=96, mean=(0.4,), std=(0.3,), classes=("core", "rest"))
    session = open_session(Bundle.open(make_bundle(tmp_path / "bundle", contract)))
    assert session.infer(np.zeros((2, 1, 64, 96), np.float32)).shape == (2, 2, 64, 96)


class Granting:
    """A session that has the CUDA provider with these options, and an honest or a dishonest profile."""

    def __init__(self, path: Path, tf32: str = "0", providers: tuple[str, ...] = (CUDA, CUDA)) -> None:
        self.path, self.tf32, self.providers = path, tf32, providers
        self.asked: dict[str, Any] = {}

    def __call__(self, path: str, options: Any, **asked: Any) -> Granting:
        self.asked = {**asked, "profiling": options.enable_profiling}
        return self

    def get_providers(self) -> list[str]:
        return [self.asked["providers"][0]]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {self.asked["providers"][0]: {"use_tf32": self.tf32, "device_id": "0"}}

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="image", shape=["N", 3, 64, 64], type="tensor(float)")]

    def run(self, names: None, batch: dict[str, np.ndarray]) -> None:
        assert batch["image"].shape == (1, 3, 64, 64)

    def end_profiling(self) -> str:
        nodes = [
            {"cat": "Node", "name": f"node_{index}", "args": {"provider": provider}}
            for index, provider in enumerate(self.providers)
        ]
        self.path.write_text(json.dumps([{"cat": "Session", "name": "run", "args": {}}, *nodes]))
        return str(self.path)


def test_a_gpu_computes_fp32_without_tf32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Granting(tmp_path / "profile.json")
    monkeypatch.setattr("onnxruntime.InferenceSession", session)
    assert backend.open_model(b"", "model.onnx", "cuda", None) is session
    assert session.asked == {
        "providers": [CUDA], "provider_options": [{"device_id": "0", "use_tf32": "0"}], "profiling": True,
        "enable_fallback": 0,
    }  # fmt: skip
    assert backend.versions_of("cuda")["tf32"] == "off"
    assert "tf32" not in backend.versions_of("cpu")
    session.tf32 = "1"
    with pytest.raises(BackendError, match=r"has {'use_tf32': '1'}, expected {'use_tf32': '0'}"):
        backend.open_model(b"", "model.onnx", "cuda", None)


def test_tensorrt_gets_its_tf32_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = backend.PROVIDERS["tensorrt"]
    session = Granting(tmp_path / "profile.json", providers=(provider,))
    monkeypatch.setattr("onnxruntime.InferenceSession", session)
    monkeypatch.setenv(backend.TF32_VARIABLE, "1")
    with pytest.raises(BackendError, match="NVIDIA_TF32_OVERRIDE is '1', expected it unset or '0'"):
        backend.open_model(b"", "model.onnx", "tensorrt", None)
    monkeypatch.delenv(backend.TF32_VARIABLE)
    backend.open_model(b"", "model.onnx", "tensorrt", None)
    assert os.environ[backend.TF32_VARIABLE] == "0"
    assert session.asked["provider_options"] == [{"device_id": "0"}]
    monkeypatch.delenv(backend.TF32_VARIABLE)


def test_a_node_that_ran_elsewhere_is_refused_by_the_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Granting(tmp_path / "profile.json", providers=(CUDA, "CPUExecutionProvider"))
    monkeypatch.setattr("onnxruntime.InferenceSession", session)
    with pytest.raises(
        BackendError, match=r"1 nodes did not run on CUDA.*\(node_1 \(CPUExecutionProvider\)\)"
    ):
        backend.open_model(b"", "model.onnx", "cuda", None)
    session.providers = ()
    with pytest.raises(BackendError, match="profile names no node"):
        backend.open_model(b"", "model.onnx", "cuda", None)


def test_the_profile_of_a_real_session_names_every_node(small_bundle: Path, tmp_path: Path) -> None:
    import onnxruntime

    def opened() -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(tmp_path / "profile")
        path = str(small_bundle / "model.onnx")
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    assert backend.nodes_elsewhere(opened(), "CPUExecutionProvider") == []
    elsewhere = backend.nodes_elsewhere(opened(), CUDA)
    assert elsewhere
    assert all(line.endswith("(CPUExecutionProvider)") for line in elsewhere)
