"""The NVIDIA driver: is there one that works? Asked before any GPU library is touched.

GPU libraries answer a missing driver by falling back to the CPU, by a TypeError about a null pointer,
or by a crash. One call of the driver's own cuInit tells, and nothing else is called after it failed.
"""

from __future__ import annotations

import ctypes
import functools

_CUDA_ERRORS = {
    100: "no CUDA device is visible",
    803: "the driver does not match the CUDA libraries",
    999: "unknown driver error",
}


@functools.cache
def why_no_driver() -> str | None:
    """None where the NVIDIA driver answers, else the reason, for example 'no NVIDIA driver'."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver"
    status = int(library.cuInit(0))
    if status == 0:
        return None
    return (
        f"NVIDIA driver refuses (cuInit returned {status}: {_CUDA_ERRORS.get(status, 'see CUDA driver API')})"
    )
