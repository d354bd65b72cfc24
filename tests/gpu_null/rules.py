"""Programs that break one rule of CUDA each, and some that keep it, for the test of the null driver."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np

from gpu_null.null import Null
from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.device.cuda import Gpu, open_gpu

SIZE = 4096


def _open() -> Gpu:
    gpu = open_gpu()
    gpu.activate()  # the thread is the program's
    return gpu


def _call(name: str, *arguments: Any) -> Any:
    from cuda.bindings import driver

    status, *values = getattr(driver, name)(*arguments)
    assert int(status) == 0, f"{name} gave {status}"
    return values[0] if values else None


def two_streams(with_event: bool) -> None:
    """One stream uploads what another then downloads, with an event between them or without."""
    gpu = _open()
    host, device = gpu.pinned_memory(SIZE), gpu.device_memory(SIZE)
    gpu.upload(device.pointer, host.pointer, SIZE)
    other, event = _call("cuStreamCreate", 1), _call("cuEventCreate", 0)
    if with_event:
        _call("cuEventRecord", event, gpu.stream)
        _call("cuStreamWaitEvent", other, event, 0)
    _call("cuMemcpyDtoHAsync", host.pointer, device.pointer, SIZE, other)
    _call("cuStreamSynchronize", other)


def reads_before_it_waits() -> tuple[bool, bool]:
    """Is a download there before the stream was waited for, and after?"""
    gpu = _open()
    host, device = gpu.pinned_memory(SIZE), gpu.device_memory(SIZE)
    host.array()[:] = 7
    gpu.upload(device.pointer, host.pointer, SIZE)
    gpu.synchronise()
    host.array()[:] = 0
    gpu.download(host.pointer, device.pointer, SIZE)
    early = bool((host.array() == 7).all())
    gpu.synchronise()
    return early, bool((host.array() == 7).all())


def overwrites_what_is_to_be_uploaded() -> int:
    """What arrives where the host writes pinned memory again before the upload was waited for."""
    gpu = _open()
    host, back, device = gpu.pinned_memory(SIZE), gpu.pinned_memory(SIZE), gpu.device_memory(SIZE)
    host.array()[:] = 1
    gpu.upload(device.pointer, host.pointer, SIZE)
    host.array()[:] = 2
    gpu.download(back.pointer, device.pointer, SIZE)
    gpu.synchronise()
    return int(back.array()[0])


def pageable_download() -> int:
    """A download into memory that is not pinned waits by itself."""
    gpu = _open()
    device, host = gpu.device_memory(SIZE), np.zeros(SIZE, np.uint8)
    gpu.download(host.ctypes.data, device.pointer, SIZE)
    return int(host[0])


def without_context() -> str:
    """Memory in a thread in which no context is current."""
    gpu = _open()
    said = []

    def take() -> None:
        try:
            gpu.device_memory(SIZE)
        except BackendError as error:
            said.append(str(error))

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return said[0]


def too_long_a_copy() -> str:
    """One byte more than the block has."""
    gpu = _open()
    host, device = gpu.pinned_memory(2 * SIZE), gpu.device_memory(SIZE)
    try:
        gpu.upload(device.pointer, host.pointer, SIZE + 1)
    except BackendError as error:
        return str(error)
    return ""


def writes_behind_the_end() -> None:
    """Work on a stream that writes one byte more than it has."""
    gpu = _open()
    device = gpu.device_memory(SIZE)
    Null().run(gpu.stream, lambda: _poke(device.pointer + SIZE), [(device.pointer, SIZE, True)])
    gpu.synchronise()


def _poke(address: int) -> None:
    ctypes.c_uint8.from_address(address).value = 1


def freed_twice() -> None:
    gpu = _open()
    pointer = _call("cuMemAlloc", SIZE)
    gpu._give_back("cuMemFree", pointer)
    gpu._give_back("cuMemFree", pointer)


def leaks() -> None:
    _open()
    _call("cuMemAlloc", SIZE)


def graph() -> tuple[int, dict[str, int]]:
    """An upload and a download captured, and launched twice with other bytes."""
    gpu = _open()
    host, back, device = gpu.pinned_memory(SIZE), gpu.pinned_memory(SIZE), gpu.device_memory(SIZE)
    _call("cuStreamBeginCapture", gpu.stream, _mode())
    gpu.upload(device.pointer, host.pointer, SIZE)
    gpu.download(back.pointer, device.pointer, SIZE)
    executable = _call("cuGraphInstantiate", _call("cuStreamEndCapture", gpu.stream), 0)
    null, total = Null(), 0
    null.reset()
    for value in (3, 4):
        host.array()[:] = value
        _call("cuGraphLaunch", executable, gpu.stream)
        gpu.synchronise()
        total = 10 * total + int(back.array()[-1])
    return total, null.counts()


def _mode() -> Any:
    from cuda.bindings import driver

    return driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


def memory_in_a_capture() -> str:
    gpu = _open()
    _call("cuStreamBeginCapture", gpu.stream, _mode())
    return _message(lambda: gpu.device_memory(SIZE))


def sticky_error() -> tuple[str, str]:
    """An illegal address breaks the context for good."""
    gpu = _open()
    Null().break_device()
    return _message(gpu.synchronise), _message(lambda: gpu.device_memory(SIZE))


def _message(call: Any) -> str:
    try:
        call()
    except BackendError as error:
        return str(error)
    return ""
