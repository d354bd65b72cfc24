"""A few threads for the work around an inference, which is idle time for every core but one.

OpenCV lets go of the GIL while it decodes, resizes and labels, so images of a batch are read and judged side
by side.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")
R = TypeVar("R")


class Crew:
    """At most as many threads as there are cores, started with the first work for two; a context manager."""

    def __init__(self, most: int) -> None:
        """most: pieces of work that come at once."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._size = min(most, cores)
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, work: Callable[[T], R], pieces: Iterable[T]) -> Iterator[R]:
        """Results in the order of the pieces; raises what the first that fails has raised."""
        pieces = list(pieces)
        if self._size < 2 or len(pieces) < 2:
            return map(work, pieces)
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor  # half a millisecond, not for single images

            self._pool = ThreadPoolExecutor(self._size, "tumorseg-crew")
        return self._pool.map(work, pieces)
