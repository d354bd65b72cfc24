"""The NVIDIA driver: is there one that works? Asked before any GPU library is touched.

GPU libraries answer a missing driver by falling back to the CPU, by a TypeError about a null pointer,
or by a crash. One call of the driver's own cuInit tells, and nothing else is called after it failed.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import uuid
from pathlib import Path

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_KERNEL_MODULE = Path("/sys/module/nvidia/version")
_NAME_BYTES = 256

_CUDA_ERRORS = {
    100: "no CUDA device is visible",
    803: "the driver does not match the CUDA libraries",
    999: "unknown driver error",
}


@functools.cache
def why_no_driver(ordinal: int = 0) -> str | None:
    """None where the NVIDIA driver answers and has the GPU of this number, else the reason, for example
    'no NVIDIA driver'."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver"
    status = int(library.cuInit(0))
    if status != 0:
        known = _CUDA_ERRORS.get(status, "see CUDA driver API")
        return f"NVIDIA driver refuses (cuInit returned {status}: {known})"
    count = ctypes.c_int(1)
    if ordinal and (library.cuDeviceGetCount(ctypes.byref(count)) or ordinal >= count.value):
        return f"there is no GPU {ordinal}, the driver shows {count.value}"
    return None


@dataclasses.dataclass(frozen=True)
class GpuFacts:
    """A visible GPU. capability: compute capability, '8.7'. cuda: newest CUDA version that the driver serves,
    '12.6'. driver: version of the kernel module, None where the system does not tell."""

    name: str
    capability: str
    cuda: str
    driver: str | None


@functools.cache
def gpus() -> tuple[GpuFacts, ...]:
    """Every visible GPU, by its number; none without a driver that answers, or up to one that it tells
    nothing of."""
    found: list[GpuFacts] = []
    while facts := gpu_facts(len(found)):
        found.append(facts)
    return tuple(found)


def gpu_facts(ordinal: int = 0) -> GpuFacts | None:
    """Facts of a GPU from the driver itself, without any package; None where the driver has none such."""
    if why_no_driver(ordinal) is not None:
        return None
    library = ctypes.CDLL("libcuda.so.1")
    version, device, major, minor = (ctypes.c_int() for _ in range(4))
    name = ctypes.create_string_buffer(_NAME_BYTES)
    statuses = (
        library.cuDriverGetVersion(ctypes.byref(version)),
        library.cuDeviceGet(ctypes.byref(device), ordinal),
        library.cuDeviceGetName(name, _NAME_BYTES, device),
        library.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device),
        library.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device),
    )
    if any(statuses):
        return None
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    driver = _KERNEL_MODULE.read_text(encoding="ascii").strip() if _KERNEL_MODULE.is_file() else None
    return GpuFacts(name.value.decode(), f"{major.value}.{minor.value}", cuda, driver)


def gpu_uuid(ordinal: int = 0) -> str | None:
    """'GPU-...' of a GPU, by which other tools know it; None where the driver does not tell."""
    if why_no_driver(ordinal) is not None:
        return None
    library, device, value = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), (ctypes.c_uint8 * 16)()
    if library.cuDeviceGet(ctypes.byref(device), ordinal) or library.cuDeviceGetUuid_v2(value, device):
        return None
    return f"GPU-{uuid.UUID(bytes=bytes(value))}"
