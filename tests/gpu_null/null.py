"""The null driver as a program on it sees it: counts, order of events, violations, work on a stream."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

LIBRARY = "libcuda.so.1"
_alive: list[object] = []  # functions that the driver may still call
_WORK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Range(ctypes.Structure):
    """Bytes that work on a stream reads, or writes where `writes` is 1."""

    _fields_ = (("start", ctypes.c_size_t), ("bytes", ctypes.c_size_t), ("writes", ctypes.c_int))


class Null:
    """The null driver that this process has loaded; AttributeError where it is a real one."""

    def __init__(self) -> None:
        self._driver = ctypes.CDLL(LIBRARY)
        for name in ("null_names", "null_trace", "null_violations"):
            getattr(self._driver, name).restype = ctypes.c_char_p
        self._names = self._driver.null_names().decode().split()
        self._driver.null_counts.restype = ctypes.POINTER(ctypes.c_uint64 * len(self._names))

    def counts(self) -> dict[str, int]:
        """Since the last `reset`; those that begin with live_ tell what is there now."""
        return dict(zip(self._names, self._driver.null_counts().contents, strict=True))

    def trace(self) -> list[str]:
        """Events in the order in which they were asked for: 'upload 4096', 'launch preprocess_float32' ..."""
        return self._driver.null_trace().decode().splitlines()

    def violations(self) -> list[str]:
        """What a real GPU would have answered with garbage, a crash or a hang; looks behind every block."""
        self._driver.null_check_fences()
        return self._driver.null_violations().decode().splitlines()

    def reset(self) -> None:
        """Begin to count anew; violations are forgotten, too."""
        self._driver.null_reset()

    def load_kernels(self, library: str) -> None:
        """Let launches call the functions of `libraries.build_kernels`."""
        if self._driver.null_load_kernels(library.encode()):
            raise OSError(f"{library} cannot be loaded")

    def break_device(self, device: int = 0, error: int = 700) -> None:
        """From now on every call on the device fails with this error, as after an illegal address."""
        self._driver.null_break(device, error)

    def run(self, stream: int, work: Callable[[], None], ranges: Sequence[tuple[int, int, bool]]) -> int:
        """Queue `work` on a stream; ranges are (address, bytes, written?) of what it touches."""
        called = _WORK(lambda _: work())
        _alive.append(called)
        array = (Range * len(ranges))(*(Range(*one) for one in ranges))
        return int(self._driver.null_run(ctypes.c_void_p(stream), called, array, len(ranges)))
