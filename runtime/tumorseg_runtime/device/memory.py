"""What a process holds of a GPU, each given back when the object that stands for it is collected."""

from __future__ import annotations

import ctypes
import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt


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
