from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from fakes.golden import golden_report
from tumorseg_export.bundle.export import export_run
from tumorseg_export.engine.build import DeviceOptions, build_for_device
from tumorseg_export.engine.tensorrt_build import RtxOptions, known_capabilities
from tumorseg_runtime.backends import onnxruntime, open_session, tensorrt
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.device.cuda import DeviceTensor, Gpu, open_gpu
from tumorseg_runtime.device.engines import Profile
from tumorseg_runtime.parity.reference import load_golden
from tumorseg_runtime.processing.preprocess import Preprocessor
from tumorseg_runtime.processing.preprocess_cuda import open_preprocessor
from tumorseg_train.networks.run import Run

Lacking = Callable[[str], NoReturn]
CORNERS = [(1, 1), (1, 7), (7, 1), (2, 2), (512, 512), (511, 513), (1, 4000), (40_000, 3), (2160, 3840)]


def noise(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.integers(0, 256, shape, np.uint8)


def assert_same_bits(got: np.ndarray, expected: np.ndarray) -> None:
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    unsigned = f"u{got.dtype.itemsize}"
    np.testing.assert_array_equal(got.view(unsigned), expected.view(unsigned))


class DeviceImage:
    """Pixels on the GPU with some bytes more per row than they need."""

    def __init__(self, gpu: Gpu, pixels: np.ndarray, more: int) -> None:
        row = int(np.prod(pixels.shape[1:]))
        rows = np.zeros((pixels.shape[0], row + more), np.uint8)
        rows[:, :row] = pixels.reshape(-1, row)
        gpu.activate()
        self.memory = gpu.device_memory(rows.nbytes)
        gpu.upload(self.memory.pointer, rows.ctypes.data, rows.nbytes)
        gpu.synchronise()
        self.__cuda_array_interface__ = {
            "version": 3, "shape": pixels.shape, "typestr": "|u1", "data": (self.memory.pointer, True),
            "strides": (row + more, 1) if pixels.ndim == 2 else (row + more, 3, 1), "stream": None,
        }  # fmt: skip


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_onnxruntime_passes_the_golden_replay(
    tiny_bundle: Bundle, device: str, precision: str, lacking: Lacking
) -> None:
    if reason := onnxruntime.why_unavailable(device):
        lacking(reason)
    session = open_session(tiny_bundle, backend="onnxruntime", device=device, precision=precision)
    for batch_size in (1, 3):
        report = golden_report(tiny_bundle, session, "onnx", batch_size=batch_size)
        assert report.breaches == ()
        assert (report.backend, report.device) == ("onnxruntime", device)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    "contract", [Contract(), Contract(height=96, width=32, mean=(0.3,), std=(0.2,))], ids=["rgb", "gray"]
)
def test_preprocessing_gives_every_bit_of_the_cpu(contract: Contract, dtype: str, tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    on_gpu, on_cpu = open_preprocessor(contract, dtype=dtype, cache=tmp_path), Preprocessor(contract)
    sizes = CORNERS + [tuple(int(v) for v in random.integers(1, 1500, 2)) for _ in range(63)]
    out: DeviceTensor | None = None
    for start in range(0, len(sizes), 8):
        images: list[Any] = []
        expected = []
        for index, size in enumerate(sizes[start : start + 8]):
            pixels = noise(random, *size, *((3,) if contract.channels == 3 and index % 2 else ()))
            expected.append(on_cpu(pixels).astype(dtype))
            images.append(DeviceImage(on_gpu.gpu, pixels, 5 * index) if index % 4 > 1 else pixels)
        out = on_gpu(images, out=out)
        assert_same_bits(out.numpy(), np.stack(expected))
    (cubin,) = tmp_path.iterdir()
    assert cubin.name.endswith(f"-sm_{on_gpu.gpu.capability}.cubin")


def test_memory_comes_back_and_too_much_is_said_so() -> None:
    gpu = open_gpu()
    for _ in range(100):
        gpu.device_memory(2**28)  # 25 GiB in all, if none came back
    with pytest.raises(BackendError, match="out of memory"):
        gpu.device_memory(2**45)
    memory = gpu.pinned_memory(64)
    assert ctypes.c_uint8.from_address(memory.pointer) is not None
    assert memory.array().shape == (64,)


@pytest.fixture(scope="module")
def device_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("device")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_builds_an_engine_that_passes_parity(
    tiny_bundle: Bundle, device_folder: Path, precision: str, lacking: Lacking
) -> None:
    require_tool(lacking, "tensorrt")
    said: list[str] = []
    options = DeviceOptions(precision, Profile(1, 2, 4), workspace_mb=1024)
    made = build_for_device(tiny_bundle, device_folder, options, said.append)
    assert made.seconds > 0
    assert any(line.endswith("%") for line in said)
    assert list(device_folder.glob("*.timing"))
    assert build_for_device(tiny_bundle, device_folder, options, said.append).seconds == 0
    found = open_session(
        tiny_bundle, backend="tensorrt", device="cuda", precision=precision, device_folder=device_folder
    )
    check_session(found, tiny_bundle)


def test_tensorrt_rtx_runs_what_was_built_ahead_of_time(
    tiny_run: Run, tmp_path: Path, lacking: Lacking
) -> None:
    require_tool(lacking, "tensorrt_rtx")
    gpu = open_gpu()
    known = known_capabilities(tensorrt.load_tool("tensorrt_rtx"))
    if gpu.capability not in known:
        pytest.skip(f"TensorRT-RTX serves {', '.join(map(str, known))}; {gpu.name} is {gpu.capability}")
    rtx = RtxOptions((gpu.capability,), Profile(1, 2, 4))
    bundle = export_run(tiny_run, tmp_path / "bundle", targets=["onnx", "onnx-fp16", "tensorrt-rtx"], rtx=rtx)
    assert [verdict.status for verdict in bundle.artefact("tensorrt-rtx", "fp16").parity] == ["passed"]
    check_session(open_session(bundle, backend="tensorrt", device="cuda", precision="fp16"), bundle)


def require_tool(lacking: Lacking, tool: str) -> None:
    """End the test where the package is missing or nothing can run engines."""
    if reason := tensorrt.why_unavailable("cuda"):
        lacking(reason)
    try:
        tensorrt.load_tool(tool)
    except BackendError as error:
        lacking(str(error))


def check_session(session: Any, bundle: Bundle) -> None:
    """Parity in every batch size, and host memory, device memory and preprocessing on the GPU agree."""
    for batch_size in range(1, 5):
        assert golden_report(bundle, session, "engine", batch_size=batch_size).breaches == ()
    golden = load_golden(bundle)[:3]
    on_host = session.infer(np.stack([item.tensor for item in golden]))
    tensor = open_preprocessor(bundle.contract)([item.pixels for item in golden])
    np.testing.assert_array_equal(session.infer(tensor), on_host)
    np.testing.assert_array_equal(session.infer(tensor), on_host)
