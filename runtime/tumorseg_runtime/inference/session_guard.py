"""Deadlines: a backend that hangs or dies is reported and replaced, and the next call works.

A thread inside of a native library cannot be stopped. So an inference with a deadline runs on a thread of
its own; when the deadline passes, that thread and its session are abandoned: the caller gets a
BackendError, a new session is opened in the background, and the memory of the old one is held until the
abandoned call returns, if it ever does. Too many such calls are an error: only a new process frees them.

A session whose network runs in a process of its own can do better (`Session.restarts`): `interrupt()` ends
that process, the call that waited returns, and the session starts another process with its next call. Such a
session is kept. Of any other one `close()` is called when it is replaced.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.core.session import Session, checked_infer

Answer = npt.NDArray[Any]  # logits or masks, as the session gives them
T = TypeVar("T")
MOST_ABANDONED = 4  # calls that were given up and still run: each holds a session's memory


def check_timeout(timeout_s: float | None) -> None:
    """Raise InputError unless it is None (no deadline) or a positive number of seconds."""
    if timeout_s is not None and not timeout_s > 0:
        raise InputError(f"timeout is {timeout_s} s, expected a positive number, or None for no deadline")


def run_within(work: Callable[[], T], timeout_s: float) -> T:
    """What `work` returns or raises; TimeoutError when it takes longer, while its thread goes on."""
    outcome: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def call() -> None:
        try:
            outcome.put((work(), None))
        except BaseException as error:  # noqa: BLE001  # carried over to the caller's thread, whatever it is
            outcome.put((None, error))

    # a daemon: a thread that never returns must not keep the process from ending
    threading.Thread(target=call, name="tumorseg-deadline", daemon=True).start()
    try:
        value, error = outcome.get(timeout=timeout_s)
    except Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value]  # without an error it is what `work` gave


class SessionKeeper:
    """The session in use, and how to get another one. May be shared by any number of threads."""

    def __init__(
        self, session: Session, contract: Contract, reopen: Callable[[], Session] | None = None
    ) -> None:
        """reopen: opens and tests another session of the same kind; without it none is replaced."""
        self.input = session.input
        self.info = session.info
        self._contract = contract
        self._reopen = reopen
        self._lock = threading.Lock()
        self._closed = False
        self._session: Session | None = session
        self._opening: threading.Event | None = None
        self._fault: Exception | None = None
        self._abandoned: list[threading.Event] = []  # one per call that was given up, set when it returned

    def infer(self, batch: Any, timeout_s: float | None = None) -> Answer:
        """Checked logits or masks of a batch (`session.checked_infer`), within `timeout_s` seconds if given.

        Raises BackendError where the backend fails or takes longer; its session is then being replaced.
        Opening the new session counts towards the deadline of the next call, which waits for it.
        """
        start = time.monotonic()
        session = self._current(timeout_s)
        return self._guarded(
            session, lambda: checked_infer(session, batch, self._contract), batch.shape[0], timeout_s, start
        )

    def submit(self, images: Sequence[Any], timeout_s: float | None = None) -> Callable[[], Any]:
        """Queue a batch of pixels on the GPU's session (`GpuMasks`) and return what waits for its answers,
        which may take `timeout_s` seconds, too. Both raise as `infer` does."""
        start = time.monotonic()
        session: Any = self._current(timeout_s)
        ticket = self._guarded(session, lambda: session.submit(images), len(images), timeout_s, start)
        return lambda: self._guarded(
            session, lambda: session.collect(ticket), len(images), timeout_s, time.monotonic()
        )

    def _guarded(
        self, session: Session, call: Callable[[], T], count: int, timeout_s: float | None, start: float
    ) -> T:
        """What `call` gives of a session and a batch of `count` images, within `timeout_s` of `start`; a
        session that fails is replaced."""
        if timeout_s is None:
            try:
                return call()
            except BackendError:
                self._replace(session)
                raise
        returned = threading.Event()

        def work() -> T:
            try:
                return call()
            finally:
                returned.set()

        try:
            return run_within(work, max(timeout_s - (time.monotonic() - start), 1e-3))
        except TimeoutError:
            with self._lock:
                self._abandoned.append(returned)
            if session.restarts:
                session.interrupt()
                raise BackendError(
                    f"{self.info.backend} on {self.info.device} gave no answer within {timeout_s:g} s for a "
                    f"batch of {count}, its process was ended: try again, allow more time, or check "
                    "the device"
                ) from None
            self._replace(session)
            raise BackendError(
                f"{self.info.backend} on {self.info.device} gave no answer within {timeout_s:g} s for a "
                f"batch of {count}, its session was abandoned and is being replaced: try again, "
                "allow more time, or check the device"
            ) from None
        except BackendError:
            self._replace(session)
            raise

    def close(self) -> None:
        """Close the session and take no further call; again: nothing."""
        with self._lock:
            session, self._session, self._closed = self._session, None, True
        if session is not None:
            session.close()

    def _current(self, timeout_s: float | None) -> Session:
        """The session; waits for one that is being opened, no longer than `timeout_s`."""
        with self._lock:
            if self._closed:
                where = f"{self.info.backend} on {self.info.device}"
                raise BackendError(f"{where} is closed, expected it open: open another segmenter")
            self._abandoned = [returned for returned in self._abandoned if not returned.is_set()]
            if len(self._abandoned) >= MOST_ABANDONED:
                raise BackendError(
                    f"{len(self._abandoned)} abandoned calls of {self.info.backend} still hold memory, "
                    f"expected fewer than {MOST_ABANDONED}: restart the process"
                )
            if self._session is not None:
                return self._session
            if self._opening is None:  # the last attempt failed
                self._open_in_background(None)
            opening = self._opening
        if opening is not None and not opening.wait(timeout_s):
            raise BackendError(
                f"{self.info.backend} on {self.info.device} is being opened again after a fault and was not "
                f"ready within {timeout_s:g} s: try again later"
            )
        with self._lock:
            if self._session is not None:
                return self._session
            fault = self._fault
        raise BackendError(
            f"{self.info.backend} on {self.info.device} failed and could not be opened again ({fault}): "
            "the next call tries once more; check the device"
        ) from fault

    def _replace(self, failed: Session) -> None:
        """Begin to open another session in place of a failed one, if that is not under way already; not
        for a session that replaces its process itself."""
        if failed.restarts:
            return
        with self._lock:
            if self._session is failed and self._reopen is not None and not self._closed:
                self._session = None
                self._open_in_background(failed)

    def _open_in_background(self, failed: Session | None) -> None:
        """Start the thread that opens; the lock is held."""
        done = self._opening = threading.Event()
        self._fault = None
        name = "tumorseg-reopen"
        threading.Thread(target=self._open, args=(done, failed), name=name, daemon=True).start()

    def _open(self, done: threading.Event, failed: Session | None) -> None:
        session, fault = None, None
        try:
            if failed is not None:  # else the last attempt to open one failed
                failed.close()
            assert self._reopen is not None  # who starts this thread has looked
            session = self._reopen()
        except Exception as error:  # noqa: BLE001  # handed to the calls that wait for the session
            fault = error
        with self._lock:
            late = session if self._closed else None  # it was closed meanwhile
            self._session, self._fault, self._opening = None if late else session, fault, None
        if late is not None:
            late.close()
        done.set()
