"""CUDA's driver without a GPU, for tests: device memory is the host's, kernels are Python functions.

`FakeDriver` stands in for the module `cuda.bindings.driver` under `tumorseg_runtime.device.cuda.Gpu`. Every
address that it is given must lie in memory that it handed out and that is still alive: it raises where a GPU
would read garbage.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

ALIGNMENT = 256  # bytes, of what cuMemAlloc gives
Kernel = Callable[..., None]  # (grid, block, values): what `cuLaunchKernel` was given


class Status(enum.IntEnum):
    """The answers that the fake gives."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2


class FakeDriver:
    """A GPU of `capability` and `nbytes` of memory that runs `kernels`, by name."""

    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR="major",
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR="minor",
    )
    CUpointer_attribute = SimpleNamespace(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL="ordinal")

    def __init__(
        self, kernels: Mapping[str, Kernel] | None = None, capability: int = 87, nbytes: int = 2**31
    ) -> None:
        self.kernels = dict(kernels or {})
        self.capability = capability
        self.free_bytes = nbytes
        self.alive: dict[int, Any] = {}
        self.calls: list[str] = []
        self.modules: list[bytes] = []

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        """A function of the driver whose work is nothing here: noted, and answered with success."""
        if not name.startswith("cu"):
            raise AttributeError(name)

        def done(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            return (Status.CUDA_SUCCESS,)

        return done

    def cuDeviceGet(self, ordinal: int) -> tuple[Any, ...]:  # the driver's names
        return Status.CUDA_SUCCESS, ordinal

    def cuDevicePrimaryCtxRetain(self, device: int) -> tuple[Any, ...]:
        return Status.CUDA_SUCCESS, "primary context"

    def cuDeviceGetAttribute(self, attribute: str, device: int) -> tuple[Any, ...]:
        return Status.CUDA_SUCCESS, self.capability // 10 if attribute == "major" else self.capability % 10

    def cuDeviceGetName(self, nbytes: int, device: int) -> tuple[Any, ...]:
        return Status.CUDA_SUCCESS, b"Fake GPU".ljust(nbytes, b"\0")

    def cuStreamCreate(self, flags: int) -> tuple[Any, ...]:
        return Status.CUDA_SUCCESS, 7

    def cuMemAlloc(self, nbytes: int) -> tuple[Any, ...]:
        if nbytes > self.free_bytes:
            return (Status.CUDA_ERROR_OUT_OF_MEMORY,)
        self.free_bytes -= nbytes
        return self.cuMemHostAlloc(nbytes, 0)

    def cuMemHostAlloc(self, nbytes: int, flags: int) -> tuple[Any, ...]:
        room = (ctypes.c_uint8 * (nbytes + ALIGNMENT))()
        offset = -ctypes.addressof(room) % ALIGNMENT
        memory = (ctypes.c_uint8 * nbytes).from_buffer(room, offset)  # keeps the room
        ctypes.memset(memory, 0xA5, nbytes)  # what nobody wrote must not look right
        self.alive[ctypes.addressof(memory)] = memory
        return Status.CUDA_SUCCESS, ctypes.addressof(memory)

    def cuMemFree(self, pointer: int) -> tuple[Any, ...]:
        self.free_bytes += len(self.alive[pointer])
        return self.cuMemFreeHost(pointer)

    def cuMemFreeHost(self, pointer: int) -> tuple[Any, ...]:
        del self.alive[pointer]
        return (Status.CUDA_SUCCESS,)

    def cuMemcpyHtoDAsync(self, target: int, source: int, nbytes: int, stream: Any) -> tuple[Any, ...]:
        self.require(target, nbytes)
        ctypes.memmove(target, source, nbytes)
        self.calls.append("cuMemcpyHtoDAsync")
        return (Status.CUDA_SUCCESS,)

    def cuMemcpyDtoDAsync(self, target: int, source: int, nbytes: int, stream: Any) -> tuple[Any, ...]:
        self.require(target, nbytes)
        return self.cuMemcpyDtoHAsync(target, source, nbytes, stream)

    def cuPointerGetAttribute(self, attribute: str, address: int) -> tuple[Any, ...]:
        """Whatever the fake handed out lies on device 0."""
        alive = any(start <= address < start + len(m) for start, m in self.alive.items())
        return (Status.CUDA_SUCCESS, 0) if alive else (Status.CUDA_ERROR_INVALID_VALUE,)

    def cuMemcpyDtoHAsync(self, target: int, source: int, nbytes: int, stream: Any) -> tuple[Any, ...]:
        self.require(source, nbytes)
        ctypes.memmove(target, source, nbytes)
        return (Status.CUDA_SUCCESS,)

    def cuModuleLoadData(self, cubin: bytes) -> tuple[Any, ...]:
        self.modules.append(cubin)
        return Status.CUDA_SUCCESS, "module"

    def cuModuleGetFunction(self, module: str, name: bytes) -> tuple[Any, ...]:
        return Status.CUDA_SUCCESS, self.kernels[name.decode()]

    def cuLaunchKernel(self, kernel: Kernel, *rest: Any) -> tuple[Any, ...]:
        *sizes, shared, _stream, (values, types), extra = rest
        assert (shared, extra, len(sizes)) == (0, 0, 6)
        kernel(
            tuple(sizes[:3]),
            tuple(sizes[3:]),
            [kind(value) for kind, value in zip(types, values, strict=True)],
        )
        self.calls.append("cuLaunchKernel")
        return (Status.CUDA_SUCCESS,)

    def run(self, stream: int, work: Callable[[], None], ranges: Sequence[tuple[int, int, bool]]) -> None:
        """Work of another library on a stream, done at once; ranges are (address, bytes, written?)."""
        for address, nbytes, _ in ranges:
            self.require(address, nbytes)
        work()
        self.calls.append(f"execute on {stream}")

    def require(self, address: int, nbytes: int) -> None:
        """Raise unless these bytes lie in memory that was handed out and not taken back."""
        if not any(
            start <= address and address + nbytes <= start + len(m) for start, m in self.alive.items()
        ):
            raise AssertionError(f"{nbytes} bytes at {address:#x} are not memory of the fake GPU")
