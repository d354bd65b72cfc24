from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tumorseg_runtime.backends import open_session
from tumorseg_runtime.backends import openvino as backend
from tumorseg_runtime.bundle import Bundle
from tumorseg_runtime.contract import Contract
from tumorseg_runtime.errors import BackendError, BundleError, InputError
from tumorseg_runtime.golden import replay

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


def test_the_golden_logits_and_what_it_runs_on(bundle: Bundle) -> None:
    session = open_session(bundle, backend="openvino", threads=1)
    info = session.info
    assert (info.backend, info.device, info.precision) == ("openvino", "cpu", "fp32")
    assert info.versions["openvino"][:2] == "20"
    report = replay(bundle, session, "model.xml", batch_size=3)
    assert report.passed, report.breaches


def test_a_batch_gives_what_single_images_give(bundle: Bundle) -> None:
    session = open_session(bundle, backend="openvino")
    batch = images(5, bundle.contract)
    assert session.input.max_batch is None
    single = np.concatenate([session.infer(image[None]) for image in batch])
    assert len({one.tobytes() for one in single}) == 5
    assert np.array_equal(session.infer(batch).view(np.uint32), single.view(np.uint32))


def test_sixteen_threads_get_the_same_bits(bundle: Bundle) -> None:
    session = open_session(bundle, backend="openvino", threads=1)
    batch = images(16, bundle.contract)
    expected = session.infer(batch)
    with ThreadPoolExecutor(16) as pool:
        for _ in range(5):
            got = np.concatenate(list(pool.map(lambda image: session.infer(image[None]), batch)))
            assert np.array_equal(got.view(np.uint32), expected.view(np.uint32))


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


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "auto"}, InputError, "device is 'auto', expected one of cpu, gpu, npu"),
        ({"precision": "fp16"}, BundleError, "has no fp16 openvino artefact"),
    ],
)
def test_wrong_choices(bundle: Bundle, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_session(bundle, backend="openvino", **options)


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


def test_a_broken_file_is_a_backend_error(bundle: Bundle) -> None:
    (bundle.root / "model.xml").write_text("<net")
    with pytest.raises(BackendError, match=r"cannot open model.xml on 'cpu' in fp32"):
        open_session(bundle, backend="openvino")


def test_a_wrong_shape_never_reaches_it(bundle: Bundle) -> None:
    session = open_session(bundle, backend="openvino")
    with pytest.raises(InputError, match=r"expected float32 \(N, 3, 64, 64\)"):
        session.infer(np.zeros((1, 3, 64, 96), np.float32))


def test_a_missing_package_is_named_with_its_extra(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendError, match=r"openvino is not installed.*install the extra \(openvino\)"):
        open_session(bundle, backend="openvino")


SERVE = """
import sys, numpy as np
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.bundle import Bundle
session = open_session(Bundle.open(sys.argv[1]), backend="openvino")
assert session.infer(np.ones((2, 3, 64, 64), np.float32)).shape == (2, 1, 64, 64)
"""


def test_no_connection_no_file(bundle: Bundle, run_guarded: Callable[..., list[str]]) -> None:
    assert run_guarded(SERVE, bundle.root) == []


def test_the_packages_own_import_would_write_into_the_home_folder(
    run_guarded: Callable[..., list[str]],
) -> None:
    """If this fails, OpenVINO has changed, and `load` may be simpler."""
    pytest.importorskip("openvino_telemetry")
    assert any("intel" in line for line in run_guarded("import openvino"))


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
