"""Tensors in the GPU's memory, ours and those of other libraries."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.device.cuda import Gpu
from tumorseg_runtime.device.memory import Memory

TYPES = {np.dtype(np.float32): "<f4", np.dtype(np.float16): "<f2", np.dtype(np.uint8): "|u1"}


@dataclasses.dataclass(frozen=True, eq=False)
class DeviceTensor:
    """A C-contiguous tensor on the GPU. PyTorch, CuPy and our TensorRT session read it without a copy.

    Complete when it is handed out: a reader needs to wait for no stream.
    """

    gpu: Gpu
    memory: Memory
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor; its memory may be larger."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": TYPES[self.dtype],
            "data": (self.memory.pointer, False),
            "strides": None,
            "stream": None,
        }

    def numpy(self) -> npt.NDArray[Any]:
        """A copy in the host's memory."""
        host = np.empty(self.shape, self.dtype)
        with self.gpu.current():
            self.gpu.download(host.ctypes.data, self.memory.pointer, self.nbytes)
            self.gpu.synchronise()
        return host


def interface_of(array: Any, name: str) -> dict[str, Any]:
    """What an array in device memory says of itself; raises InputError where it is none."""
    interface = getattr(array, "__cuda_array_interface__", None)
    if not isinstance(interface, dict):
        raise InputError(
            f"{name} is {type(array).__name__}, expected a numpy array, or one in device memory "
            "(with __cuda_array_interface__)"
        )
    return interface
