"""The CUDA preprocessing kernel run on the CPU: the very source that NVRTC gets, compiled by g++.

A few lines around it stand in for what CUDA gives a kernel (blockIdx and its like). What holds here holds on
a GPU, since the kernel has integers only; what does not show here are the driver, the copies and the launch.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.core.files import write_bytes, write_text
from tumorseg_runtime.processing import kernels
from tumorseg_runtime.processing.preprocess import Preprocessor
from tumorseg_runtime.processing.preprocess_cuda import BLOCK, DTYPES, IMAGE, tap_table

COMPILER = "g++"
Kernel = Callable[[tuple[int, ...], tuple[int, ...], list[Any]], None]  # grid, block, arguments

_HARNESS = r"""
#define __global__
#define __device__
#define __forceinline__ inline
struct Dim { unsigned int x, y, z; };
static Dim blockIdx, blockDim, threadIdx;
#include "preprocess.cu"

template <typename Kernel>
static void every_thread(Dim grid, Dim block, Kernel kernel) {
  blockDim = block;
  for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
  for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
  for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++)
  for (threadIdx.z = 0; threadIdx.z < block.z; threadIdx.z++)
  for (threadIdx.y = 0; threadIdx.y < block.y; threadIdx.y++)
  for (threadIdx.x = 0; threadIdx.x < block.x; threadIdx.x++) kernel();
}

extern "C" void launch_float32(const unsigned* sizes, const Image* images, const Tap* taps, const Word* table,
                               Word* out, int planes, int height, int width) {
  every_thread({sizes[0], sizes[1], sizes[2]}, {sizes[3], sizes[4], sizes[5]},
               [&] { preprocess_float32(images, taps, table, out, planes, height, width); });
}

extern "C" void launch_float16(const unsigned* sizes, const Image* images, const Tap* taps,
                               const unsigned short* table, unsigned short* out, int planes, int height,
                               int width) {
  every_thread({sizes[0], sizes[1], sizes[2]}, {sizes[3], sizes[4], sizes[5]},
               [&] { preprocess_float16(images, taps, table, out, planes, height, width); });
}

extern "C" void launch_uint8(const unsigned* sizes, const Image* images, const Tap* taps, const Byte* table,
                             Byte* out, int planes, int height, int width) {
  every_thread({sizes[0], sizes[1], sizes[2]}, {sizes[3], sizes[4], sizes[5]},
               [&] { preprocess_uint8(images, taps, table, out, planes, height, width); });
}
"""


def why_no_compiler() -> str | None:
    """None where the compiler is installed, else the reason in short."""
    return None if shutil.which(COMPILER) else f"no {COMPILER}"


def compile_kernels(folder: Path, source: Path = kernels.SOURCE) -> dict[str, Kernel]:
    """The kernels by name, compiled into `folder`; raises BackendError where that fails."""
    if reason := why_no_compiler():
        raise BackendError(f"{reason}, expected it to compile {source.name}: install it")
    write_text(folder / "harness.cpp", _HARNESS, durable=False)
    write_bytes(folder / "preprocess.cu", source.read_bytes(), durable=False)
    library = folder / "harness.so"
    command = [COMPILER, "-std=c++17", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "harness.cpp"]
    done = subprocess.run(
        [*command, "-o", library.name], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), "no message")
        raise BackendError(
            f"{COMPILER} does not compile {source.name} ({first.strip()}), expected the installed source: "
            "install tumorseg again"
        )
    loaded = ctypes.CDLL(str(library))
    return {f"preprocess_{dtype}": _launcher(loaded, f"launch_{dtype}") for dtype in DTYPES}


def _launcher(library: ctypes.CDLL, name: str) -> Kernel:
    launch = getattr(library, name)

    def run(grid: tuple[int, ...], block: tuple[int, ...], values: list[Any]) -> None:
        launch((ctypes.c_uint * 6)(*grid, *block), *values)

    return run


class HostKernel:
    """The float32 kernel as a preprocessor of one image: uint8 (H, W[, 3]) -> float32 (C, height, width)."""

    def __init__(self, source: Path = kernels.SOURCE) -> None:
        """Compile it; raises BackendError. source: for tests, another kernel than the installed one."""
        with tempfile.TemporaryDirectory() as folder:
            self._kernel = compile_kernels(Path(folder), source)["preprocess_float32"]

    def __call__(self, image: npt.NDArray[np.uint8], contract: Contract) -> npt.NDArray[np.float32]:
        """Preprocess one image under a contract that takes it."""
        pixels = np.ascontiguousarray(image)
        height, width = pixels.shape[:2]
        channels = 3 if pixels.ndim == 3 else 1
        taps = np.concatenate([tap_table(width, contract.width), tap_table(height, contract.height)])
        record = np.zeros(1, IMAGE)
        record[0] = (pixels.ctypes.data, width * channels, channels, 0, contract.width, 0)
        table = np.ascontiguousarray(Preprocessor(contract).table)
        tensor = np.empty((contract.channels, contract.height, contract.width), np.float32)
        grid = (-(-contract.width // BLOCK[0]), -(-contract.height // BLOCK[1]), 1)
        addresses = [ctypes.c_void_p(array.ctypes.data) for array in (record, taps, table, tensor)]
        sizes = [ctypes.c_int(size) for size in (contract.channels, contract.height, contract.width)]
        self._kernel(grid, BLOCK, [*addresses, *sizes])
        return tensor
