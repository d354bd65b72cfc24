"""SIGTERM and SIGINT end a program in an orderly way: with 128 plus the signal's number, and one line.

Whatever was being written is whole or not there (`tumorseg_runtime.core.files`), so that the program may stop
between any two of its lines.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
AGAIN_S = 2.0  # a second signal this much later ends the process at once; `timeout` sends two in a row
LEAVE_S = 10  # most seconds between the line that the program stops and its end
AGAIN = "nothing is left half written: run the same command again"


class Stopped(BaseException):
    """A signal asked the program to end. hint: how to go on, '' for a process that is not to speak.

    Not an Exception, so that no `except Exception` takes it for a fault.
    """

    def __init__(self, number: int, hint: str = AGAIN) -> None:
        super().__init__(number, hint)
        self.number = signal.Signals(number)
        self.hint = hint

    @property
    def exit_code(self) -> int:
        """As a shell reports a process that died of the signal: 143 for SIGTERM, 130 for SIGINT."""
        return 128 + self.number

    def __str__(self) -> str:
        return f"stopped by {self.number.name}: {self.hint}"


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Inside the block the first signal raises Stopped; a signal that is ignored (nohup) stays ignored.

    After a signal the program is on its way out, and the handlers stay.
    """
    first: list[float] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if not first:
            first.append(time.monotonic())
            raise Stopped(number)
        _again(first[0], number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    mine = threading.current_thread() is threading.main_thread()  # Python lets no other handle signals
    try:
        for number, handler in before.items():
            if mine and handler is not signal.SIG_IGN:
                signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            if mine and not first:
                signal.signal(number, handler)


@contextlib.contextmanager
def postponed() -> Iterator[Callable[[], bool]]:
    """Inside the block signals are only noted; at its end the first one is handled as before the block.

    For a library that calls back and swallows what is raised there. Yields whether a signal was noted, for a
    callback that can cancel the work. A second signal later than `AGAIN_S` ends the process.
    """
    noted: list[tuple[int, float]] = []

    def note(number: int, frame: FrameType | None) -> None:
        if noted:
            _again(noted[0][1], number)
        noted.append((number, time.monotonic()))

    mine = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in SIGNALS if mine}
    ours = {number: handler for number, handler in handlers.items() if callable(handler)}
    try:
        for number in ours:
            signal.signal(number, note)
        yield lambda: bool(noted)
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        if noted:
            number = signal.Signals(noted[0][0])
            ours[number](number, None)


def _again(first: float, number: int) -> None:
    """End the process at once by a signal that comes late enough after the first."""
    if time.monotonic() - first > AGAIN_S:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def leave_in_peace() -> None:
    """No further signal changes the exit status; what hangs on its way out is killed by an alarm.

    The interpreter, as it ends, puts back the default action, which would end it with another status.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LEAVE_S)


@contextlib.contextmanager
def resumable(hint: Callable[[], str]) -> Iterator[None]:
    """What is stopped inside the block goes on as `hint` says at that time."""
    try:
        yield
    except Stopped as stopped:
        stopped.hint = hint()
        raise
