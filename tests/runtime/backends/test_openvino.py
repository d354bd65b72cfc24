from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tumorseg_runtime.backends import open_session
from tumorseg_runtime.backends import openvino as backend
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError

if backend.why_unavailable("cpu"):
    pytest.skip(f"{backend.why_unavailable('cpu')}", allow_module_level=True)
Maker = Callable[..., Path]
Convert = Callable[[Path, str], None]


@pytest.fixture
def bundle(make_bundle: Maker, convert_bundle: Convert, tmp_path: Path) -> Bundle:
    root = make_bundle(tmp_path / "bundle")
    convert_bundle(root, "openvino")
    return Bundle.open(root)


def images(count: int, contract: Contract) -> np.ndarray:
    shape = (count, contract.channels, contract.height, contract.width)
    return np.random.default_rng(count).standard_normal(shape, np.float32)


def test_the_precision_is_pinned_and_what_was_granted_is_compared(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = backend.load()
    asked = {}
    compile_model = openvino.Core.compile_model

    def compile_in_other(self: Any, model: Any, device: str, options: dict[str, str]) -> Any:
        asked.update(options, device=device)
        return Granted(compile_model(self, model, device, options))

    class Granted:
        def __init__(self, compiled: Any) -> None:
            self.compiled = compiled

        def get_property(self, name: str) -> Any:
            if name == "INFERENCE_PRECISION_HINT":
                return openvino.Type.bf16
            return self.compiled.get_property(name)

    monkeypatch.setattr(openvino.Core, "compile_model", compile_in_other)
    with pytest.raises(BackendError, match="gave bf16 on CPU, expected f32 on CPU: it fell back"):
        open_session(bundle, backend="openvino", threads=1)
    assert asked["device"] == "CPU"
    assert asked["INFERENCE_PRECISION_HINT"] == "f32"
    assert asked["INFERENCE_NUM_THREADS"] == "1"


@pytest.mark.parametrize("device", ["gpu", "npu"])
def test_a_device_that_is_not_there_is_an_error_and_never_the_cpu(
    bundle: Bundle, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend.load().Core, "available_devices", ["CPU"])
    with pytest.raises(BackendError, match=f"openvino on '{device}' is not available: .*finds only CPU"):
        open_session(bundle, backend="openvino", device=device)


def test_threads_are_the_cpus(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "why_unavailable", lambda device: None)
    with pytest.raises(InputError, match="threads is 2 on 'gpu', expected none"):
        open_session(bundle, backend="openvino", device="gpu", threads=2)


def test_a_network_of_another_contract_is_refused(
    make_bundle: Maker, convert_bundle: Convert, tmp_path: Path
) -> None:
    root = make_bundle(tmp_path / "bundle", channels=1)
    convert_bundle(root, "openvino")
    with pytest.raises(
        BundleError, match=r"model.xml takes f32 \[None, 1, 64, 64\], expected one f32 \[N, 3, 64, 64\]"
    ):
        open_session(Bundle.open(root), backend="openvino")


@pytest.mark.fault
def test_a_broken_file_is_a_backend_error(bundle: Bundle, reseal: Callable[[Path], Bundle]) -> None:
    (bundle.root / "model.xml").write_text("<net")
    with pytest.raises(BackendError, match=r"cannot open model.xml on 'cpu' in fp32"):
        open_session(reseal(bundle.root), backend="openvino")


SERVE = """
import sys, numpy as np
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.bundle.bundle import Bundle
session = open_session(Bundle.open(sys.argv[1]), backend="openvino")
assert session.infer(np.ones((2, 3, 64, 64), np.float32)).shape == (2, 1, 64, 64)
"""


@pytest.mark.process
def test_the_packages_own_import_would_write_into_the_home_folder(
    run_guarded: Callable[..., list[str]],
) -> None:
    """If this fails, OpenVINO has changed, and `load` may be simpler."""
    pytest.importorskip("openvino_telemetry")
    assert any("intel" in line for line in run_guarded("import openvino"))


@pytest.mark.process
def test_the_telemetry_client_is_not_loaded(bundle: Bundle) -> None:
    code = SERVE + "\nprint([name for name in sys.modules if name.startswith('openvino_telemetry')])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle.root)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout == "[]\n"
