"""What a process holds of a GPU, each given back when the object that stands for it is collected."""

from __future__ import annotations

import ctypes
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tumorseg_runtime.device.cuda import Gpu


@dataclasses.dataclass(frozen=True, eq=False)
class Memory:
    """Bytes on the GPU, or pinned bytes of the host."""

    pointer: int
    nbytes: int

    def array(self) -> npt.NDArray[np.uint8]:
        """Pinned host memory as uint8 (nbytes,); the array does not keep it alive."""
        return np.ctypeslib.as_array((ctypes.c_uint8 * self.nbytes).from_address(self.pointer))


@dataclasses.dataclass(frozen=True, eq=False)
class Handle:
    """A stream, an event, a graph, or a kernel with its module. value: as the driver takes it."""

    value: Any


class Pair:
    """Pinned and device memory of one size, which grows: what a batch is copied from and to."""

    host: Memory
    device: Memory

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.nbytes = 0

    def require(self, nbytes: int) -> None:
        """Make it at least so large; the context is current. Raises BackendError for want of memory."""
        if self.nbytes < nbytes:
            if self.nbytes:
                del self.host, self.device  # the old goes first: both may not fit
                self.nbytes = 0
            self.host, self.device = self._gpu.pinned_memory(nbytes), self._gpu.device_memory(nbytes)
            self.nbytes = nbytes
