"""A bounded queue between two threads that can be finished from one end and cancelled from anywhere."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class CancelledError(Exception):
    """The channel was cancelled: nobody wants what goes through it any more."""


class StageQueue(Generic[T]):
    """At most `size` items wait in it, in order. With `drop_oldest` a full channel makes room by dropping
    the item that waits longest; without it `put` waits for room."""

    def __init__(self, size: int, *, drop_oldest: bool = False) -> None:
        self._size = size
        self._drop_oldest = drop_oldest
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._finished = self._cancelled = False

    def put(self, item: T) -> None:
        """Add an item; raises CancelledError."""
        with self._changed:
            while len(self._items) >= self._size and not self._cancelled:
                if self._drop_oldest:
                    self._items.popleft()
                else:
                    self._changed.wait()
            self._raise_if_cancelled()
            self._items.append(item)
            self._changed.notify_all()

    def take(self, limit: int, *, wait: bool = True) -> list[T]:
        """Wait for an item, take those that are there, at most `limit`; empty once it is finished.

        wait: False takes what is there now, which may be nothing.

        Raises CancelledError.
        """
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._items or self._finished or self._cancelled)
            self._raise_if_cancelled()
            taken = [self._items.popleft() for _ in range(min(limit, len(self._items)))]
            self._changed.notify_all()
            return taken

    def __iter__(self) -> Iterator[T]:
        while taken := self.take(1):
            yield taken[0]

    def finish(self) -> None:
        """No item will follow; those that wait can still be taken."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Wake everybody with CancelledError and forget the items."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()

    def _raise_if_cancelled(self) -> None:
        if self._cancelled:
            raise CancelledError
