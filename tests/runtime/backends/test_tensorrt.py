"""The TensorRT backend on a fake TensorRT and a fake GPU; tests/gpu holds what needs real ones."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fakes.tensorrt_device import PROFILE, Device
from tumorseg_runtime.backends import BACKENDS, open_session
from tumorseg_runtime.backends import tensorrt as backend
from tumorseg_runtime.bundle.bundle import Artefact, Bundle, FileRecord, sha256_of
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError
from tumorseg_runtime.core.session import checked_infer
from tumorseg_runtime.device.cuda import Gpu
from tumorseg_runtime.device.driver import why_no_driver
from tumorseg_runtime.device.engines import OtherMachineError, write_engine
from tumorseg_runtime.device.tensor import DeviceTensor
from tumorseg_runtime.device.tensorrt_log import collecting_logger, out_of_memory


@pytest.fixture
def make_device(small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Device]:
    def make(**network: Any) -> Device:
        device = Device(Bundle.open(small_bundle), tmp_path, **network)
        monkeypatch.setattr(backend, "why_no_driver", lambda *ordinal: None)
        monkeypatch.setattr(backend, "open_gpu", lambda *ordinal: device.gpu)
        monkeypatch.setitem(sys.modules, "tensorrt", device.trt)
        monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: SimpleNamespace())
        return device

    return make


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def on_device(gpu: Gpu, array: np.ndarray) -> DeviceTensor:
    memory = gpu.device_memory(array.nbytes)
    gpu.upload(memory.pointer, array.ctypes.data, array.nbytes)
    return DeviceTensor(gpu, memory, array.shape, array.dtype)


def test_any_batch_of_the_profile_is_run(make_device: Callable[..., Device]) -> None:
    device = make_device(gain=3.0)
    session = device.open()
    assert (session.info.backend, session.info.device, session.info.precision) == ("tensorrt", "cuda", "fp32")
    assert session.info.versions == {"tensorrt": "10.3.0", "gpu": "Fake GPU", "compute_capability": "sm_87"}
    assert session.input.max_batch == 4
    for count in (4, 1, 3, 2):
        batch = noise(count, 3, 64, 64)
        logits = checked_infer(session, batch, device.bundle.contract)
        np.testing.assert_allclose(logits, batch.mean(axis=1, keepdims=True) * 3, rtol=1e-6)


def test_a_tensor_on_the_gpu_is_read_where_it_lies(make_device: Callable[..., Device]) -> None:
    device = make_device()
    session = device.open()
    batch = noise(2, 3, 64, 64)
    expected = session.infer(batch)
    tensor = on_device(device.gpu, batch)
    device.driver.calls.clear()
    np.testing.assert_array_equal(session.infer(tensor), expected)
    assert "cuMemcpyHtoDAsync" not in device.driver.calls
    assert f"execute on {device.gpu.stream}" in device.driver.calls


def test_memory_is_taken_once_and_answers_stay(make_device: Callable[..., Device]) -> None:
    device = make_device()
    session = device.open()
    first = session.infer(noise(4, 3, 64, 64))
    free, alive = device.driver.free_bytes, len(device.driver.alive)
    kept = first.copy()
    for count in range(1, 5):
        session.infer(noise(count, 3, 64, 64))
    assert (device.driver.free_bytes, len(device.driver.alive)) == (free, alive)
    np.testing.assert_array_equal(first, kept)
    device.gpu = None  # type: ignore[assignment]
    del session
    assert device.driver.free_bytes == 2**31
    assert device.driver.alive == {}


def test_threads_wait_for_each_other(make_device: Callable[..., Device]) -> None:
    device = make_device()
    session = device.open()
    batches = [noise(1 + n % 4, 3, 64, 64) + n for n in range(16)]
    answers: dict[int, np.ndarray] = {}

    def run(n: int) -> None:
        answers[n] = session.infer(batches[n])

    threads = [threading.Thread(target=run, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, batch in enumerate(batches):
        np.testing.assert_array_equal(answers[n], session.infer(batch))


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((5, 3, 64, 64), np.float32), np.zeros((0, 3, 64, 64), np.float32),
        np.zeros((1, 3, 64, 96), np.float32), np.zeros((1, 3, 64, 64), np.float16),
        np.zeros((3, 64, 64), np.float32),
    ],
    ids=str,
)  # fmt: skip
def test_a_batch_of_another_form_is_refused_wherever_it_lies(
    make_device: Callable[..., Device], batch: np.ndarray
) -> None:
    device = make_device()
    session = device.open()
    memory = device.gpu.device_memory(2**20)
    for one in (batch, DeviceTensor(device.gpu, memory, batch.shape, batch.dtype)):
        with pytest.raises(InputError, match=r"takes float32 \(N, 3, 64, 64\) without gaps, N from 1 to 4"):
            session.infer(one)


def test_gaps_in_device_memory_and_other_objects_are_refused(make_device: Callable[..., Device]) -> None:
    session = make_device().open()
    gaps = SimpleNamespace(
        __cuda_array_interface__={
            "version": 3, "shape": (1, 3, 64, 64), "typestr": "<f4", "data": (1, True),
            "strides": (9, 9, 9, 4),
        }
    )  # fmt: skip
    with pytest.raises(InputError, match=r"batch is float32 \(1, 3, 64, 64\) with gaps"):
        session.infer(gaps)
    with pytest.raises(InputError, match="batch is list, expected a numpy array, or one in device memory"):
        session.infer([1.0])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"tool_version": "10.4.0"}, OtherMachineError, r"is for tensorrt 10\.4\.0, 10\.3\.0 is installed"),
        ({"capabilities": (89, 120)}, OtherMachineError, r"for sm_89, sm_120, this GPU \(.*\) is sm_87"),
        ({"gpu": "Orin"}, OtherMachineError, "was tuned on Orin, this GPU is Fake GPU"),
        ({"onnx_sha256": "0" * 64}, BundleError, "was built from graph 0000000000000000, expected"),
        ({"bundle_sha256": "0" * 64}, BackendError, r"has no fp32 engine of bundle .* \(1 of others\)"),
    ],
)
def test_a_foreign_engine_never_reaches_tensorrt(
    make_device: Callable[..., Device],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    device = make_device()
    device.write(dataclasses.replace(device.key, **changes))
    monkeypatch.setattr(device.trt, "Runtime", lambda logger: pytest.fail("TensorRT was asked"))
    with pytest.raises(error, match=message):
        device.open()


def test_an_altered_engine_never_reaches_tensorrt(
    make_device: Callable[..., Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = make_device()
    (path,) = device.folder.glob("*.engine")
    path.write_bytes(path.read_bytes()[:-1])
    monkeypatch.setattr(device.trt, "Runtime", lambda logger: pytest.fail("TensorRT was asked"))
    with pytest.raises(BundleError, match="is missing, cut off or altered"):
        device.open()


@pytest.mark.parametrize("network", [{"channels": 1}, {"classes": 2}, {"size": (64, 96)}])
def test_an_engine_that_is_not_the_contracts_network_is_refused(
    make_device: Callable[..., Device], network: dict[str, Any]
) -> None:
    with pytest.raises(BundleError, match=r"expected one float input \(N, 3, 64, 64\) and one float32"):
        make_device(**network).open()


@pytest.mark.parametrize(
    ("logged", "message"),
    [
        ("Serialization failed", r"cannot load it \(Serialization failed\): build the engine again"),
        ("Error Code 2: OutOfMemory (Requested 9)", r"\(out of memory: Error .*\): end other programs"),
        ("Requested amount of GPU memory could not be allocated", r"\(out of memory: .*smaller --batch"),
    ],
)
def test_what_tensorrt_says_is_passed_on(
    make_device: Callable[..., Device], logged: str, message: str
) -> None:
    device = make_device()
    device.trt.fails = logged
    with pytest.raises(BackendError, match=message):
        device.open()


def test_a_gpu_without_room_for_the_buffers_says_so(make_device: Callable[..., Device]) -> None:
    device = make_device()
    device.driver.free_bytes = 1000
    with pytest.raises(BackendError, match="cuMemAlloc: the GPU is out of memory"):
        device.open().infer(noise(4, 3, 64, 64))


def test_without_a_driver_tensorrt_is_not_touched(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "why_no_driver", lambda *ordinal: "no NVIDIA driver")
    monkeypatch.setattr(backend, "load_tool", lambda tool: pytest.fail(f"{tool} was imported"))
    with pytest.raises(BackendError, match="tensorrt on 'cuda' is not available: no NVIDIA driver; expected"):
        open_session(Bundle.open(small_bundle), backend="tensorrt", device="cuda", device_folder=tmp_path)
    with pytest.raises(BackendError, match="no NVIDIA driver"):
        open_session(Bundle.open(small_bundle), backend="tensorrt", device="cuda", precision="fp16")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "why_no_driver", lambda *ordinal: None)
    real = importlib.util.find_spec
    absent: set[str] = {"tensorrt", "tensorrt_rtx"}
    monkeypatch.setattr(
        backend.importlib.util, "find_spec", lambda name: None if name in absent else real("json")
    )
    assert backend.why_unavailable("cuda") == "neither tensorrt nor tensorrt_rtx is installed"
    absent = {"cuda"}
    assert backend.why_unavailable("cuda") == "cuda-bindings is not installed"
    absent = {"tensorrt"}
    assert backend.why_unavailable("cuda") is None
    with pytest.raises(InputError, match="device is 'cpu', expected cuda"):
        backend.why_unavailable("cpu")
    for tool, extra in (("tensorrt", "tensorrt-cu13"), ("tensorrt_rtx", "tensorrt-rtx")):
        monkeypatch.setitem(sys.modules, tool, None)
        with pytest.raises(BackendError, match=rf"{tool} cannot be imported .*'tumorseg\[{extra}\]'"):
            backend.load_tool(tool)


def test_threads_of_a_cpu_are_refused(make_device: Callable[..., Device]) -> None:
    device = make_device()
    with pytest.raises(InputError, match="threads is 2, a GPU has no CPU threads to bound"):
        backend.open_session(BACKENDS["tensorrt"], device.bundle, "cuda", "fp32", 2, device.folder)


def test_a_device_folder_without_an_engine_leaves_the_bundles_own(
    make_device: Callable[..., Device], tmp_path: Path
) -> None:
    """`tumorseg bench --rank` makes a device folder that holds a ranking alone."""
    device = make_device()
    bundle = dataclasses.replace(device.bundle, root=tmp_path / "bundle")
    shutil.copytree(device.bundle.root, bundle.root)
    own = dataclasses.replace(device.key, bundle_sha256=None)
    built = (device.folder / device.key.name()).read_bytes()
    write_engine(bundle.root / "model.rtx.engine", built, own)
    artefact = Artefact("model.rtx.engine", backend.FORMAT, "fp32", PROFILE.largest, {}, ())
    files = {
        name: FileRecord(sha256_of(bundle.root / name), (bundle.root / name).stat().st_size)
        for name in ("model.rtx.engine", "model.rtx.engine.json")
    }
    bundle = dataclasses.replace(
        bundle, artefacts=(*bundle.artefacts, artefact), files={**bundle.files, **files}
    )
    (tmp_path / "ranking").mkdir()
    chosen = backend._choose(bundle, "fp32", tmp_path / "ranking")
    assert (chosen.path, chosen.key) == (bundle.root / artefact.file, own)
    assert (
        backend.open_session(
            BACKENDS["tensorrt"], bundle, "cuda", "fp32", None, tmp_path / "ranking"
        ).info.backend
        == "tensorrt"
    )
    chosen = backend._choose(bundle, "fp32", device.folder)
    assert (chosen.path, chosen.key) == (device.folder / device.key.name(), device.key)


def test_a_bundle_without_an_engine_says_which_artefacts_it_has(make_device: Callable[..., Device]) -> None:
    device = make_device()
    with pytest.raises(BundleError, match=r"has no fp32 tensorrt-rtx artefact, it has onnx fp32"):
        backend.open_session(BACKENDS["tensorrt"], device.bundle, "cuda", "fp32", None)


@pytest.mark.skipif(why_no_driver() is None, reason="this machine has an NVIDIA driver")
def test_the_logger_works_on_the_real_package() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    logger = collecting_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(0)  # the parser does not keep it alive
    parser = trt.OnnxParser(network, logger)
    assert not parser.parse(b"no graph")
    assert logger.errors
    assert not out_of_memory(logger)
