"""One NVIDIA GPU as this project needs it: memory, copies, kernels, one stream. Through CUDA's driver API.

`cuda.bindings` is imported only after the driver has answered (`tumorseg_runtime.device.driver`): a call
into CUDA without a driver can hang for minutes. All work shares the device's primary context, the one that
TensorRT, PyTorch and CuPy use, so a pointer of one is good in the other.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from tumorseg_runtime.core.errors import BackendError, GpuLostError, InputError
from tumorseg_runtime.device.driver import why_no_driver
from tumorseg_runtime.device.memory import Handle, Memory

DISABLE_TIMING = 2  # CU_EVENT_DISABLE_TIMING
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the legacy default stream
NAME_BYTES = 256
MAJOR, MINOR = "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR", "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR"
OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
DEVICE_ORDINAL = "CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL"
# Errors after which every call of this process on the device fails (CUDA_ERROR_ILLEGAL_ADDRESS and its like).
BROKEN = frozenset({214, 700, 702, 709, *range(714, 720)})
NAMES_STREAM = 3  # the version of __cuda_array_interface__ that first names a stream


class Gpu:
    """One device. Not for several threads at once: its users hold a lock of their own.

    driver: the module `cuda.bindings.driver`, whose functions return (status, *values).
    ordinal: of those that CUDA_VISIBLE_DEVICES leaves.
    Stream and context are given back when it was collected, and all that it gave out. In a fork of the
    process that opened it, CUDA does not work: there it is an error, and nothing is given back.
    """

    def __init__(self, driver: Any, ordinal: int = 0) -> None:
        self.driver, self.ordinal, self._process = driver, ordinal, os.getpid()
        self.call("cuInit", 0)
        device = self.call("cuDeviceGet", ordinal)
        self._context = self.call("cuDevicePrimaryCtxRetain", device)
        attributes = driver.CUdevice_attribute
        major, minor = (
            int(self.call("cuDeviceGetAttribute", getattr(attributes, name), device))
            for name in (MAJOR, MINOR)
        )
        self.capability = 10 * major + minor
        self.name = bytes(self.call("cuDeviceGetName", NAME_BYTES, device)).split(b"\0")[0].decode()
        with self.current():
            self._stream = self.call("cuStreamCreate", NON_BLOCKING)
        given_out = (self._process, driver, device, self._context, self._stream)
        release = weakref.finalize(self, _release, *given_out)
        release.atexit = False  # at exit the driver takes everything back

    @property
    def stream(self) -> int:
        """Handle of the one stream on which everything here runs."""
        return int(self._stream)

    def activate(self) -> None:
        """Make the device's context current in this thread, for good: for programs, whose thread it is."""
        self.call("cuCtxSetCurrent", self._context)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """The device's context is current in this thread, and afterwards the one that was before.

        Raises BackendError in a fork of the process that opened it.
        """
        if os.getpid() != self._process:
            raise BackendError(
                f"{self.name} was opened by process {self._process}, expected this one ({os.getpid()}), as "
                "CUDA does not survive a fork: open the bundle in the process that uses it"
            )
        self.call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self.driver.cuCtxPopCurrent()

    def device_memory(self, nbytes: int) -> Memory:
        """Memory of the GPU; raises BackendError where there is not enough."""
        return self._memory(int(self.call("cuMemAlloc", nbytes)), nbytes, "cuMemFree")

    def pinned_memory(self, nbytes: int) -> Memory:
        """Memory of the host that the GPU copies from and to without a detour."""
        return self._memory(int(self.call("cuMemHostAlloc", nbytes, 0)), nbytes, "cuMemFreeHost")

    def _memory(self, pointer: int, nbytes: int, free: str) -> Memory:
        memory = Memory(pointer, nbytes)
        weakref.finalize(memory, self._give_back, free, pointer).atexit = False
        return memory

    def owned(self, value: Any, destroy: str, of: Any = None) -> Handle:
        """A handle that goes, by the driver's function, when the object is collected. of: what goes."""
        handle = Handle(value)
        weakref.finalize(handle, self._give_back, destroy, value if of is None else of).atexit = False
        return handle

    def _give_back(self, function: str, value: Any) -> None:
        """The collector calls it, in any thread: whoever uses a GPU that failed hears of it elsewhere."""
        if os.getpid() == self._process:
            self.driver.cuCtxPushCurrent(self._context)
            getattr(self.driver, function)(value)
            self.driver.cuCtxPopCurrent()

    def _on(self, stream: Handle | None) -> Any:
        return self._stream if stream is None else stream.value

    def upload(self, target: int, source: int, nbytes: int, *, on: Handle | None = None) -> None:
        """Queue a copy from host address `source` to device address `target`. on: another stream."""
        self.call("cuMemcpyHtoDAsync", target, source, nbytes, self._on(on))

    def download(self, target: int, source: int, nbytes: int, *, on: Handle | None = None) -> None:
        """Queue a copy from device address `source` to host address `target`. on: another stream."""
        self.call("cuMemcpyDtoHAsync", target, source, nbytes, self._on(on))

    def more_stream(self) -> Handle:
        """Another stream beside the one of all work, for copies that overlap with it."""
        return self.owned(self.call("cuStreamCreate", NON_BLOCKING), "cuStreamDestroy")

    def event(self, *, timed: bool = False) -> Handle:
        """A mark in a stream, with a time only where it is asked for."""
        return self.owned(self.call("cuEventCreate", 0 if timed else DISABLE_TIMING), "cuEventDestroy")

    def nanoseconds(self, start: Handle, end: Handle) -> int:
        """Between two timed marks that were waited for."""
        return round(float(self.call("cuEventElapsedTime", start.value, end.value)) * 1e6)

    def record(self, event: Handle, *, on: Handle | None = None) -> None:
        """Set the mark behind all that is queued on a stream, None for the one of all work."""
        self.call("cuEventRecord", event.value, self._on(on))

    def after(self, event: Handle, *, on: Handle | None = None) -> None:
        """What is queued on the stream from now on waits for the mark; the host does not."""
        self.call("cuStreamWaitEvent", self._on(on), event.value, 0)

    def await_event(self, event: Handle) -> None:
        """The host waits for the mark; an error of what lies before it is raised here."""
        self.call("cuEventSynchronize", event.value)

    def replay(self, graph: Handle) -> None:
        """Queue a graph of `device.graphs`."""
        self.call("cuGraphLaunch", graph.value, self._stream)

    def synchronise(self, *, on: Handle | None = None) -> None:
        """Wait until all that was queued on a stream is done; an error of any of it is raised here."""
        self.call("cuStreamSynchronize", self._on(on))

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Queue a copy inside of the GPU's memory."""
        self.call("cuMemcpyDtoDAsync", target, source, nbytes, self._stream)

    def wait_for(self, interface: dict[str, Any], name: str) -> int:
        """Address of another library's array, when what that library has queued for it is done.

        An interface below version 3 (PyTorch's) names no stream: all work of the context is waited for.
        Raises InputError where the array lies on another device, or in no device's memory.
        """
        address = int(interface["data"][0])
        attribute = getattr(self.driver.CUpointer_attribute, DEVICE_ORDINAL)
        status, *ordinal = self.driver.cuPointerGetAttribute(attribute, address)
        if int(status) or int(ordinal[0]) != self.ordinal:
            place = "no memory of a GPU" if int(status) else f"memory of cuda:{int(ordinal[0])}"
            raise InputError(f"{name} lies in {place}, expected cuda:{self.ordinal}: copy it there")
        stream = interface.get("stream")
        if int(interface.get("version", 0)) < NAMES_STREAM:
            self.call("cuCtxSynchronize")
        elif stream is not None:
            self.call("cuStreamSynchronize", stream)
        return address

    def clear(self, target: int, nbytes: int) -> None:
        """Queue zeros into device memory."""
        self.call("cuMemsetD8Async", target, 0, nbytes, self._stream)

    def function(self, cubin: bytes, name: str) -> Handle:
        """A kernel, with the compiled module that it is loaded from."""
        module = self.call("cuModuleLoadData", cubin)
        return self.owned(self.call("cuModuleGetFunction", module, name.encode()), "cuModuleUnload", module)

    def launch(
        self,
        function: Handle,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        *,
        addresses: Sequence[int],
        numbers: Sequence[int],
    ) -> None:
        """Queue a kernel whose arguments are first addresses (64 bits), then numbers (32 bits, signed)."""
        types = (ctypes.c_void_p,) * len(addresses) + (ctypes.c_int,) * len(numbers)
        arguments = ((*addresses, *numbers), types)
        self.call("cuLaunchKernel", function.value, *grid, *block, 0, self._stream, arguments, 0)

    def call(self, function: str, *arguments: Any) -> Any:
        """A function of the driver; its value. Raises BackendError, GpuLostError where nothing will help."""
        status, *values = getattr(self.driver, function)(*arguments)
        if int(status) == OUT_OF_MEMORY:
            raise BackendError(
                f"{function}: the GPU is out of memory (asked for {arguments[0]}), expected enough for the "
                "largest batch: take a smaller one, or end other programs on the GPU"
            )
        if int(status) in BROKEN:
            raise GpuLostError(
                f"{function} failed ({getattr(status, 'name', status)}): the GPU is lost to this process, "
                "expected CUDA_SUCCESS: start the process again; if it stays, check the GPU and its driver"
            )
        if int(status) != 0:
            raise BackendError(
                f"{function} failed ({getattr(status, 'name', status)}), expected CUDA_SUCCESS: "
                "open the bundle again; if it stays, check the GPU and its driver"
            )
        return values[0] if values else None


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


def _release(process: int, driver: Any, device: Any, context: Any, stream: Any) -> None:
    if os.getpid() != process:
        return
    driver.cuCtxPushCurrent(context)
    driver.cuStreamDestroy(stream)
    driver.cuCtxPopCurrent()
    driver.cuDevicePrimaryCtxRelease(device)


def open_gpu(ordinal: int = 0) -> Gpu:
    """A GPU of this machine; raises BackendError where there is no driver or no `cuda.bindings`."""
    if reason := why_no_driver(ordinal):
        raise BackendError(
            f"the GPU cannot be used: {reason}; expected an NVIDIA GPU with a driver that works: "
            "install the driver, or choose the CPU"
        )
    return Gpu(bindings("driver"), ordinal)


def bindings(name: str) -> Any:
    """`cuda.bindings.driver` or `.nvrtc`; raises BackendError that names the extra."""
    try:
        return importlib.import_module(f"cuda.bindings.{name}")
    except ImportError as error:
        raise BackendError(
            f"cuda.bindings.{name} cannot be imported ({error}), expected the package cuda-bindings: "
            "pip install 'tumorseg[gpu-cu12]' or 'tumorseg[gpu-cu13]', by the driver's CUDA"
        ) from error
