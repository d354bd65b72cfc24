"""One NVIDIA GPU as this project needs it: memory, copies, kernels, one stream. Through CUDA's driver API.

`cuda.bindings` is imported only after the driver has answered (`tumorseg_runtime.device.driver`): a call
into CUDA without a driver can hang for minutes. All work shares the device's primary context, the one that
TensorRT, PyTorch and CuPy use, so a pointer of one is good in the other.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import BackendError, GpuLostError, InputError
from tumorseg_runtime.device.driver import why_no_driver

DISABLE_TIMING = 2  # CU_EVENT_DISABLE_TIMING
THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the legacy default stream
MEMCPY_NODE, HOST_NODE = 1, 3  # CUgraphNodeType
ON_DEVICE = 2  # CU_MEMORYTYPE_DEVICE
NAME_BYTES = 256
MAJOR, MINOR = "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR", "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR"
OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
DEVICE_ORDINAL = "CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL"
# Errors after which every call of this process on the device fails (CUDA_ERROR_ILLEGAL_ADDRESS and its like).
BROKEN = frozenset({214, 700, 702, 709, *range(714, 720)})
NAMES_STREAM = 3  # the version of __cuda_array_interface__ that first names a stream


@dataclasses.dataclass(frozen=True, eq=False)
class Memory:
    """Bytes on the GPU, or pinned bytes of the host; given back when the object is collected."""

    pointer: int
    nbytes: int

    def array(self) -> npt.NDArray[np.uint8]:
        """Pinned host memory as uint8 (nbytes,); the array does not keep it alive."""
        return np.ctypeslib.as_array((ctypes.c_uint8 * self.nbytes).from_address(self.pointer))


class Gpu:
    """One device. Not for several threads at once: its users hold a lock of their own.

    driver: the module `cuda.bindings.driver`, whose functions return (status, *values).
    ordinal: of those that CUDA_VISIBLE_DEVICES leaves.
    Stream and context are given back when it and all of its memory were collected.
    """

    def __init__(self, driver: Any, ordinal: int = 0) -> None:
        self._driver = driver
        self.ordinal = ordinal
        self._call("cuInit", 0)
        device = self._call("cuDeviceGet", ordinal)
        self._context = self._call("cuDevicePrimaryCtxRetain", device)
        attributes = driver.CUdevice_attribute
        major, minor = (
            int(self._call("cuDeviceGetAttribute", getattr(attributes, name), device))
            for name in (MAJOR, MINOR)
        )
        self.capability = 10 * major + minor
        self.name = bytes(self._call("cuDeviceGetName", NAME_BYTES, device)).split(b"\0")[0].decode()
        with self.current():
            self._stream = self._call("cuStreamCreate", NON_BLOCKING)
        self._handles: list[tuple[str, Any]] = [("cuStreamDestroy", self._stream)]
        release = weakref.finalize(self, _release, driver, device, self._context, self._handles)
        release.atexit = False  # at exit the driver takes everything back

    @property
    def stream(self) -> int:
        """Handle of the one stream on which everything here runs."""
        return int(self._stream)

    def activate(self) -> None:
        """Make the device's context current in this thread, for good: for programs, whose thread it is."""
        self._call("cuCtxSetCurrent", self._context)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """The device's context is current in this thread, and afterwards the one that was before."""
        self._call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self._driver.cuCtxPopCurrent()

    def device_memory(self, nbytes: int) -> Memory:
        """Memory of the GPU; raises BackendError where there is not enough."""
        return self._memory(int(self._call("cuMemAlloc", nbytes)), nbytes, "cuMemFree")

    def pinned_memory(self, nbytes: int) -> Memory:
        """Memory of the host that the GPU copies from and to without a detour."""
        return self._memory(int(self._call("cuMemHostAlloc", nbytes, 0)), nbytes, "cuMemFreeHost")

    def _memory(self, pointer: int, nbytes: int, free: str) -> Memory:
        memory = Memory(pointer, nbytes)
        finalizer = weakref.finalize(memory, self._free, free, pointer)
        finalizer.atexit = False  # at exit the driver takes everything back
        return memory

    def _free(self, function: str, pointer: int) -> None:
        """The collector calls it, in any thread: whoever uses a GPU that failed hears of it elsewhere."""
        self._driver.cuCtxPushCurrent(self._context)
        getattr(self._driver, function)(pointer)
        self._driver.cuCtxPopCurrent()

    def upload(self, target: int, source: int, nbytes: int, *, on: Any = None) -> None:
        """Queue a copy from host address `source` to device address `target`. on: another stream."""
        self._call("cuMemcpyHtoDAsync", target, source, nbytes, self._stream if on is None else on)

    def download(self, target: int, source: int, nbytes: int, *, on: Any = None) -> None:
        """Queue a copy from device address `source` to host address `target`. on: another stream."""
        self._call("cuMemcpyDtoHAsync", target, source, nbytes, self._stream if on is None else on)

    def more_stream(self) -> Any:
        """Another stream beside the one of all work, for copies that overlap with it."""
        return self._owned(self._call("cuStreamCreate", NON_BLOCKING), "cuStreamDestroy")

    def event(self, *, timed: bool = False) -> Any:
        """A mark in a stream, with a time only where it is asked for."""
        return self._owned(self._call("cuEventCreate", 0 if timed else DISABLE_TIMING), "cuEventDestroy")

    def nanoseconds(self, start: Any, end: Any) -> int:
        """Between two timed marks that were waited for."""
        return round(float(self._call("cuEventElapsedTime", start, end)) * 1e6)

    def record(self, event: Any, *, on: Any = None) -> None:
        """Set the mark behind all that is queued on a stream, None for the one of all work."""
        self._call("cuEventRecord", event, self._stream if on is None else on)

    def after(self, event: Any, *, on: Any = None) -> None:
        """What is queued on the stream from now on waits for the mark; the host does not."""
        self._call("cuStreamWaitEvent", self._stream if on is None else on, event, 0)

    def await_event(self, event: Any) -> None:
        """The host waits for the mark; an error of what lies before it is raised here."""
        self._call("cuEventSynchronize", event)

    def capture(self, work: Callable[[], None]) -> Any:
        """What `work` queues on the stream of all work, as a graph for `replay`; nothing of it is run.

        None where a graph would not do the same again: libraries also bring tables up from memory of the
        host, which they write anew for each run, and give it back by functions of the host.
        """
        self._call("cuStreamBeginCapture", self._stream, self._driver.CUstreamCaptureMode(THREAD_LOCAL))
        try:
            work()
        finally:
            graph = self._call("cuStreamEndCapture", self._stream)
        try:
            if any(self._is_of_host(node) for node in self._nodes(graph)):
                return None
            return self._owned(self._call("cuGraphInstantiate", graph, 0), "cuGraphExecDestroy")
        finally:
            self._call("cuGraphDestroy", graph)

    def _nodes(self, graph: Any) -> Sequence[Any]:
        *_, count = self._driver.cuGraphGetNodes(graph, 0)
        return self._driver.cuGraphGetNodes(graph, count)[1] if count else ()

    def _is_of_host(self, node: Any) -> bool:  # a function of the host, or a copy from its memory
        kind = int(self._call("cuGraphNodeGetType", node))
        if kind != MEMCPY_NODE:
            return kind == HOST_NODE
        return int(self._call("cuGraphMemcpyNodeGetParams", node).srcMemoryType) != ON_DEVICE

    def replay(self, graph: Any) -> None:
        """Queue a captured graph."""
        self._call("cuGraphLaunch", graph, self._stream)

    def _owned(self, handle: Any, destroy: str) -> Any:
        """A handle that is given back before the stream and the context are."""
        self._handles.append((destroy, handle))
        return handle

    def synchronise(self) -> None:
        """Wait until all that was queued is done; an error of any of it is raised here."""
        self._call("cuStreamSynchronize", self._stream)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Queue a copy inside of the GPU's memory."""
        self._call("cuMemcpyDtoDAsync", target, source, nbytes, self._stream)

    def wait_for(self, interface: dict[str, Any], name: str) -> int:
        """Address of another library's array, when what that library has queued for it is done.

        An interface below version 3 (PyTorch's) names no stream: all work of the context is waited for.
        Raises InputError where the array lies on another device, or in no device's memory.
        """
        address = int(interface["data"][0])
        attribute = getattr(self._driver.CUpointer_attribute, DEVICE_ORDINAL)
        status, *ordinal = self._driver.cuPointerGetAttribute(attribute, address)
        if int(status) or int(ordinal[0]) != self.ordinal:
            place = "no memory of a GPU" if int(status) else f"memory of cuda:{int(ordinal[0])}"
            raise InputError(f"{name} lies in {place}, expected cuda:{self.ordinal}: copy it there")
        stream = interface.get("stream")
        if int(interface.get("version", 0)) < NAMES_STREAM:
            self._call("cuCtxSynchronize")
        elif stream is not None:
            self._call("cuStreamSynchronize", stream)
        return address

    def clear(self, target: int, nbytes: int) -> None:
        """Queue zeros into device memory."""
        self._call("cuMemsetD8Async", target, 0, nbytes, self._stream)

    def function(self, cubin: bytes, name: str) -> Any:
        """A kernel of a compiled module; the module stays loaded."""
        return self._call("cuModuleGetFunction", self._call("cuModuleLoadData", cubin), name.encode())

    def launch(
        self,
        function: Any,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        *,
        addresses: Sequence[int],
        numbers: Sequence[int],
    ) -> None:
        """Queue a kernel whose arguments are first addresses (64 bits), then numbers (32 bits, signed)."""
        types = (ctypes.c_void_p,) * len(addresses) + (ctypes.c_int,) * len(numbers)
        arguments = ((*addresses, *numbers), types)
        self._call("cuLaunchKernel", function, *grid, *block, 0, self._stream, arguments, 0)

    def _call(self, function: str, *arguments: Any) -> Any:
        status, *values = getattr(self._driver, function)(*arguments)
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


def _release(driver: Any, device: Any, context: Any, handles: list[tuple[str, Any]]) -> None:
    driver.cuCtxPushCurrent(context)
    for destroy, handle in reversed(handles):
        getattr(driver, destroy)(handle)
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
