"""Stage `kernel`: the preprocessing kernel compiled by NVRTC, bit for bit against the CPU, and its memory."""

from __future__ import annotations

import ctypes
import functools
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.gpu_evidence.stage import Findings, NotPossibleError, Options, require_modules
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.device.cuda import Gpu, bindings, open_gpu
from tumorseg_runtime.device.driver import why_no_driver
from tumorseg_runtime.device.tensor import DeviceTensor
from tumorseg_runtime.processing.kernels import SOURCE, compile_cubin
from tumorseg_runtime.processing.preprocess import Preprocessor
from tumorseg_runtime.processing.preprocess_cuda import DTYPES, open_preprocessor

CONTRACTS = {"rgb": Contract(), "gray": Contract(height=96, width=32, mean=(0.3,), std=(0.2,))}
CORNERS = ((1, 1), (1, 7), (7, 1), (2, 2), (512, 512), (511, 513), (1, 4000), (40_000, 3), (2160, 3840))
DRAWN, DRAWN_DRY, BATCH = 63, 7, 8  # sizes beside the corners; images of a batch
TOO_MUCH = 2**45
PIECE, PIECE_DRY = 2**28, 2**20  # bytes
FRAMES = {"1080p gray": (1080, 1920), "1080p RGB": (1080, 1920, 3)}
REPEATS = 50


class DeviceImage:
    """Pixels on the GPU with some bytes more per row than they need."""

    def __init__(self, gpu: Gpu, pixels: npt.NDArray[np.uint8], more: int) -> None:
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


def run(options: Options, found: Findings) -> None:
    """Compile for every GPU that NVRTC knows; then, on the GPU at hand, every bit, the memory, the time."""
    compiles(found)
    if reason := why_no_driver():
        if not options.dry:
            raise NotPossibleError(reason)
        found.lacks(f"the kernel on a GPU: {reason}")
        on_the_host(found)
        return
    require_modules("cuda")
    gpu = open_gpu()
    for name, contract in CONTRACTS.items():
        for dtype in DTYPES:
            work = functools.partial(bits, contract, dtype, DRAWN_DRY if options.dry else DRAWN)
            found.attempt(f"same bits as the CPU, {name} {dtype}", work)
    memory(gpu, found, PIECE_DRY if options.dry else PIECE)
    preprocess = open_preprocessor(CONTRACTS["rgb"])
    for name, shape in FRAMES.items():
        found.figures[f"{name} to 512x512, host to GPU, ms, median"] = milliseconds(preprocess, shape)


def compiles(found: Findings) -> None:
    """NVRTC needs no driver."""
    if not _has_nvrtc():
        raise NotPossibleError(
            "cuda.bindings.nvrtc is not installed (extras gpu-cu12, gpu-cu13, kernel-cu12, -cu13)"
        )
    nvrtc = bindings("nvrtc")
    try:
        _, known = nvrtc.nvrtcGetSupportedArchs()
        _, major, minor = nvrtc.nvrtcVersion()
    except RuntimeError as error:
        raise NotPossibleError(f"libnvrtc cannot be loaded ({str(error).splitlines()[0]})") from error
    source = SOURCE.read_bytes()

    def all_of_them() -> str:
        sizes = [len(compile_cubin(source, one)) for one in known]
        return f"NVRTC {major}.{minor}: {', '.join(f'sm_{one}' for one in known)}; {max(sizes)} bytes at most"

    found.attempt("compiles for every GPU that NVRTC knows", all_of_them)


def _has_nvrtc() -> bool:
    try:
        bindings("nvrtc")
    except BackendError:
        return False
    return True


def on_the_host(found: Findings) -> None:
    """The same source by g++, as a substitute."""
    from tumorseg_benchmarks.variants.host_kernel import HostKernel, why_no_compiler

    if reason := why_no_compiler():
        found.lacks(f"the kernel's source on the CPU: {reason}")
        return
    kernel, random = HostKernel(), np.random.default_rng(5)
    images = [random.integers(0, 256, size, np.uint8) for size in CORNERS[:7]]
    contract = CONTRACTS["rgb"]
    wrong = sum(differing(kernel(image, contract), Preprocessor(contract)(image)) for image in images)
    found.check("the kernel's source by g++ gives the CPU's bits", not wrong, f"{wrong} values differ")


def bits(contract: Contract, dtype: str, drawn: int) -> str:
    """Compare batches of images of all sizes, from host memory and from device memory with gaps."""
    random = np.random.default_rng(5)
    on_gpu = open_preprocessor(contract, dtype=dtype)
    sizes = [*CORNERS, *(tuple(int(v) for v in random.integers(1, 1500, 2)) for _ in range(drawn))]
    out: DeviceTensor | None = None
    wrong = total = 0
    for start in range(0, len(sizes), BATCH):
        images: list[Any] = []
        expected = []
        for index, size in enumerate(sizes[start : start + BATCH]):
            colour = (3,) if contract.channels == 3 and index % 2 else ()
            pixels = random.integers(0, 256, (*size, *colour), np.uint8)
            expected.append(on_gpu.on_cpu(pixels))
            images.append(DeviceImage(on_gpu.gpu, pixels, 5 * index) if index % 4 > 1 else pixels)
        out = on_gpu(images, out=out)
        wrong += differing(out.numpy(), np.stack(expected))
        total += int(np.prod(out.shape))
    if wrong:
        raise BackendError(f"{wrong} of {total} values differ, expected none: preprocess on the CPU")
    return f"{len(sizes)} images, {total} values, none differs"


def differing(got: npt.NDArray[Any], expected: npt.NDArray[Any]) -> int:
    """Values whose bits differ."""
    unsigned = f"u{expected.dtype.itemsize}"
    return int(np.count_nonzero(got.view(unsigned) != expected.view(unsigned)))


def memory(gpu: Gpu, found: Findings, piece: int) -> None:
    """What is taken comes back; too much is an error that says so; pinned memory can be written."""

    def comes_back() -> str:
        for _ in range(100):
            gpu.device_memory(piece)
        return f"100 times {piece / 2**20:.0f} MiB, one after the other"

    found.attempt("memory comes back", comes_back)
    try:
        gpu.device_memory(TOO_MUCH)
    except BackendError as error:
        found.check("too much memory is refused", "out of memory" in str(error), str(error))
    else:
        found.check("too much memory is refused", False, f"got {TOO_MUCH} bytes")
    pinned = gpu.pinned_memory(64)
    pinned.array()[:] = 7
    value = ctypes.c_uint8.from_address(pinned.pointer).value
    found.check("pinned memory can be written", value == 7, f"read {value}")


def milliseconds(preprocess: Any, shape: tuple[int, ...]) -> float:
    """Median of one image, from numpy to a tensor that is complete on the GPU."""
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    out, times = preprocess([image]), []
    for _ in range(REPEATS):
        start = time.perf_counter()
        out = preprocess([image], out=out)
        times.append(time.perf_counter() - start)
    return round(1000 * float(np.median(times)), 4)
