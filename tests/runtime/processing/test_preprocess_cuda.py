"""The CUDA preprocessing without a GPU: its kernel compiled by NVRTC for every target, and run on the CPU.

g++ compiles the very source that NVRTC gets (`tumorseg_benchmarks.variants.host_kernel`). `FakeDriver`
launches it, so that the host's side runs as it is, too.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fakes.cuda import FakeDriver
from tumorseg_benchmarks.variants.host_kernel import Kernel, compile_kernels, why_no_compiler
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.device import cuda
from tumorseg_runtime.device.cuda import Gpu
from tumorseg_runtime.device.tensor import DeviceTensor
from tumorseg_runtime.processing import kernels, preprocess_cuda
from tumorseg_runtime.processing.preprocess import Preprocessor
from tumorseg_runtime.processing.preprocess_cuda import (
    IMAGE,
    TAP,
    CudaPreprocessor,
    open_preprocessor,
    require_same_bits,
)

CONTRACT = Contract(height=64, width=96)
GRAY_CONTRACT = Contract(height=96, width=32, mean=(0.3,), std=(0.2,))
CORNERS = [
    (1, 1), (1, 7), (7, 1), (2, 2), (3, 3), (64, 96), (96, 64), (63, 97), (1, 4000), (4000, 1), (40_000, 3),
    (17, 5001), (1080, 1920), (2160, 3840),
]  # fmt: skip


class DeviceImage:
    """Pixels in the fake GPU's memory with some bytes more per row than they need."""

    def __init__(self, gpu: Gpu, pixels: npt.NDArray[np.uint8], more: int, **changes: Any) -> None:
        row = int(np.prod(pixels.shape[1:]))
        rows = np.full((pixels.shape[0], row + more), 0xA5, np.uint8)
        rows[:, :row] = pixels.reshape(-1, row)
        self.memory = gpu.device_memory(rows.nbytes)
        gpu.upload(self.memory.pointer, rows.ctypes.data, rows.nbytes)
        strides = (row + more, 1) if pixels.ndim == 2 else (row + more, 3, 1)
        self.__cuda_array_interface__ = {
            "version": 3, "shape": pixels.shape, "typestr": "|u1", "data": (self.memory.pointer, True),
            "strides": strides, "stream": 5, **changes,
        }  # fmt: skip


@pytest.fixture(scope="session")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kernel]:
    """The kernels as g++ compiles them, by name."""
    if reason := why_no_compiler():
        pytest.skip(reason)
    return compile_kernels(tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def driver(on_cpu: dict[str, Kernel], monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    monkeypatch.setattr(preprocess_cuda, "cubin_of", lambda capability, cache: b"cubin")
    return FakeDriver(on_cpu)


@pytest.fixture
def gpu(driver: FakeDriver) -> Gpu:
    return Gpu(driver)


def noise(random: np.random.Generator, *shape: int) -> npt.NDArray[np.uint8]:
    return random.integers(0, 256, shape, np.uint8)


def assert_same_bits(got: npt.NDArray[Any], expected: npt.NDArray[Any], message: str = "") -> None:
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    unsigned = f"u{got.dtype.itemsize}"
    np.testing.assert_array_equal(got.view(unsigned), expected.view(unsigned), err_msg=message)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("contract", [CONTRACT, GRAY_CONTRACT], ids=["rgb", "gray"])
def test_every_bit_is_that_of_the_cpu(gpu: Gpu, contract: Contract, dtype: str) -> None:
    random = np.random.default_rng(31)
    sizes = CORNERS + [tuple(int(v) for v in random.integers(1, 700, 2)) for _ in range(200)]
    on_cpu, on_gpu = Preprocessor(contract), CudaPreprocessor(contract, gpu, dtype)
    start = kinds = 0
    while start < len(sizes):
        batch = sizes[start : start + int(random.integers(1, 9))]
        start += len(batch)
        images: list[Any] = []
        expected = []
        for height, width in batch:
            colour = contract.channels == 3 and bool(random.integers(2))
            pixels = noise(random, height, width, *((3,) if colour else ()))
            planes = on_cpu.planes(pixels, contract.channels)
            expected.append(planes if dtype == "uint8" else on_cpu(pixels).astype(dtype))
            where = int(random.integers(3))  # packed in host memory, a view of host memory, device memory
            if where == 1:
                pixels = np.pad(pixels, [(1, 2), (3, 1), (0, 0)][: pixels.ndim])[1:-2, 3:-1]
            images.append(pixels if where < 2 else DeviceImage(gpu, pixels, int(random.integers(0, 70))))
            kinds |= 1 << (3 * colour + where)
        assert_same_bits(on_gpu(images).numpy(), np.stack(expected), f"{batch}")
    assert kinds == (0b111111 if contract.channels == 3 else 0b111)


def test_output_memory_is_taken_again_and_given_back(gpu: Gpu, driver: FakeDriver) -> None:
    random = np.random.default_rng(2)
    preprocess = CudaPreprocessor(CONTRACT, gpu)
    free = driver.free_bytes
    first = preprocess([noise(random, 50, 60), noise(random, 70, 80, 3)])
    small = noise(random, 9, 9)
    second = preprocess([small], out=first)
    assert second.memory is first.memory
    assert (second.shape, second.nbytes) == ((1, 3, 64, 96), 3 * 64 * 96 * 4)
    assert_same_bits(second.numpy(), Preprocessor(CONTRACT)(small)[None])
    with pytest.raises(InputError, match=r"out has 147456 bytes, expected at least 221184 for float32"):
        preprocess([small] * 3, out=first)
    staging = preprocess._staging.device
    del first, second
    assert driver.free_bytes == free - staging.nbytes
    del staging, preprocess
    assert driver.free_bytes == 2**31


def test_other_libraries_can_read_the_tensor(gpu: Gpu) -> None:
    tensor = CudaPreprocessor(CONTRACT, gpu, "float16")([np.zeros((5, 5), np.uint8)])
    assert tensor.__cuda_array_interface__ == {
        "version": 3, "shape": (1, 3, 64, 96), "typestr": "<f2", "data": (tensor.memory.pointer, False),
        "strides": None, "stream": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.float32), "scan: .*uint8"),
        (np.zeros((4, 4, 4), np.uint8), "scan: "),
        ([[1, 2]], "scan is list, expected a numpy array, or one in device memory"),
    ],
)
def test_bad_images_are_refused(gpu: Gpu, image: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        CudaPreprocessor(CONTRACT, gpu)([image], ["scan"])


@pytest.mark.parametrize(
    "changes",
    [{"typestr": "<f4"}, {"shape": (4, 5, 4)}, {"strides": (1, 4)}, {"shape": (0, 5), "strides": None}],
)
def test_bad_device_images_are_refused(gpu: Gpu, changes: dict[str, Any]) -> None:
    image = DeviceImage(gpu, np.zeros((4, 5), np.uint8), 3, **changes)
    with pytest.raises(InputError, match=r"scan: is .* in device memory, expected uint8"):
        CudaPreprocessor(CONTRACT, gpu)([image], ["scan"])


def test_a_device_image_is_waited_for(gpu: Gpu, driver: FakeDriver) -> None:
    preprocess = CudaPreprocessor(CONTRACT, gpu)
    image = DeviceImage(gpu, np.zeros((4, 5), np.uint8), 3)
    driver.calls.clear()
    preprocess([image])
    assert driver.calls.index("cuStreamSynchronize") < driver.calls.index("cuLaunchKernel")
    assert (
        driver.calls.count("cuMemcpyHtoDAsync") == 1
    )  # descriptions and taps; the pixels stay where they lie


def test_colour_for_a_gray_network_no_images_and_unknown_dtypes_are_refused(gpu: Gpu) -> None:
    with pytest.raises(InputError, match="image 1: is a colour image, the network takes gray"):
        CudaPreprocessor(GRAY_CONTRACT, gpu)([np.zeros((3, 3), np.uint8), np.zeros((3, 3, 3), np.uint8)])
    with pytest.raises(InputError, match="got no images"):
        CudaPreprocessor(CONTRACT, gpu)([])
    with pytest.raises(InputError, match="dtype is 'int8', expected one of float32, float16"):
        CudaPreprocessor(CONTRACT, gpu, "int8")


def test_a_gpu_out_of_memory_says_so(driver: FakeDriver) -> None:
    preprocess = CudaPreprocessor(CONTRACT, Gpu(driver))
    driver.free_bytes = 1000
    with pytest.raises(BackendError, match=r"cuMemAlloc: the GPU is out of memory \(asked for 73728\)"):
        preprocess([np.zeros((5, 5), np.uint8)])
    driver.free_bytes = 2**20
    assert preprocess([np.zeros((5, 5), np.uint8)]).shape == (1, 3, 64, 96)


@pytest.mark.parametrize("contract", [CONTRACT, GRAY_CONTRACT], ids=["rgb", "gray"])
def test_a_gpu_that_gives_other_bits_is_not_handed_out(driver: FakeDriver, contract: Contract) -> None:
    require_same_bits(CudaPreprocessor(contract, Gpu(driver)))
    real = driver.kernels["preprocess_float32"]

    def one_bit_off(grid: tuple[int, ...], block: tuple[int, ...], values: list[Any]) -> None:
        real(grid, block, values)
        ctypes.c_uint8.from_address(values[3].value).value ^= 1

    driver.kernels["preprocess_float32"] = one_bit_off
    with pytest.raises(BackendError, match=r"on Fake GPU \(sm_87\) gives 1 of \d+ values other than the CPU"):
        require_same_bits(CudaPreprocessor(contract, Gpu(driver)))


def test_without_a_driver_no_cuda_library_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "why_no_driver", lambda *ordinal: "no NVIDIA driver")
    monkeypatch.setattr(cuda, "bindings", lambda name: pytest.fail(f"cuda.bindings.{name} was asked for"))
    with pytest.raises(BackendError, match="the GPU cannot be used: no NVIDIA driver; expected"):
        open_preprocessor(CONTRACT)


def test_missing_bindings_are_named_with_their_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "why_no_driver", lambda *ordinal: None)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(BackendError, match=r"pip install 'tumorseg\[gpu-cu12\]' or 'tumorseg\[gpu-cu13\]'"):
        open_preprocessor(CONTRACT)


def test_open_gives_a_preprocessor_that_was_compared(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preprocess_cuda, "open_gpu", lambda ordinal=0: Gpu(driver))
    preprocess = open_preprocessor(CONTRACT, dtype="float16")
    assert "cuLaunchKernel" in driver.calls
    assert isinstance(preprocess([np.zeros((5, 5), np.uint8)]), DeviceTensor)


def test_host_and_kernel_agree_on_sizes() -> None:
    text = kernels.SOURCE.read_text()
    assert f"sizeof(Tap) == {TAP.itemsize} && sizeof(Image) == {IMAGE.itemsize}" in text


# What NVRTC makes of the source, on a machine without a driver.

needs_nvrtc = pytest.mark.skipif(
    importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings.nvrtc") is None,
    reason="cuda-bindings is not installed (extras gpu-cu12, gpu-cu13)",
)


@needs_nvrtc
@pytest.mark.parametrize("capability", [75, 80, 86, 87, 89, 90, 100, 110, 120])
def test_the_source_compiles_for(capability: int) -> None:
    cubin = kernels.cubin_of(capability)
    assert cubin[:4] == b"\x7fELF"
    assert all(f"preprocess_{dtype}".encode() in cubin for dtype in preprocess_cuda.DTYPES)


@needs_nvrtc
def test_what_nvrtc_refuses_is_said_in_one_line() -> None:
    with pytest.raises(BackendError, match=r"the GPU is sm_42, NVRTC knows sm_.*install a CUDA") as caught:
        kernels.cubin_of(42)
    assert "\n" not in str(caught.value)
    with pytest.raises(
        BackendError, match=r"does not compile preprocess\.cu for sm_80 \(preprocess\.cu\(1\)"
    ):
        kernels.compile_cubin(b"__global__ void broken( {", 80)


def test_a_cubin_is_kept_only_in_a_folder_that_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[int] = []

    def compile_cubin(source: bytes, capability: int, name: str) -> bytes:
        compiled.append(capability)
        return b"cubin for %d" % capability

    monkeypatch.setattr(kernels, "compile_cubin", compile_cubin)
    cache = tmp_path / "device" / "kernels"
    for capability in (87, 87, 89):
        assert kernels.cubin_of(capability, cache) == b"cubin for %d" % capability
    assert compiled == [87, 89]
    kept = sorted(path.name for path in cache.iterdir())
    assert [name[-12:] for name in kept] == ["-sm_87.cubin", "-sm_89.cubin"]
    damaged = cache / kept[0]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"X")
    assert kernels.cubin_of(87, cache) == b"cubin for 87"
    assert compiled == [87, 89, 87]
    source = tmp_path / "preprocess.cu"
    source.write_bytes(kernels.SOURCE.read_bytes() + b"\n")
    kernels.cubin_of(87, cache, source)
    assert len(list(cache.iterdir())) == 3
    assert kernels.cubin_of(87) == b"cubin for 87"
    assert len(list(cache.iterdir())) == 3
