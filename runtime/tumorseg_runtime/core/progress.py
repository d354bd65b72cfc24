"""How far a long piece of work is: a share from 0 to 1, told to whoever wants to know."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Tell = Callable[[float], None]
T = TypeVar("T")

TELLING = 0.01  # a smaller share says nothing of the time that is left: the start costs most of it
FIRST_S, LATEST_S = 5.0, 60.0  # when the first line comes, and how far apart the next ones are at most


def silent(share: float) -> None:
    """Tells nobody."""


def part(tell: Tell, number: int, parts: int) -> Tell:
    """What tells of part `number` (from 0) of so many equal ones."""
    return lambda share: tell((number + share) / parts)


def parts(tell: Tell, costs: Sequence[float]) -> list[Tell]:
    """What tells of each part, one after the other; costs: of each, in any unit."""
    ends = list(itertools.accumulate(costs, initial=0.0))
    whole = ends[-1] or 1.0
    return [
        functools.partial(_within, tell, start / whole, (end - start) / whole)
        for start, end in itertools.pairwise(ends)
    ]


def _within(tell: Tell, start: float, length: float, share: float) -> None:
    tell(start + length * share)


def told(items: Sequence[T], tell: Tell) -> Iterator[T]:
    """The items; after each one the share that is done is told."""
    for number, item in enumerate(items, start=1):
        yield item
        tell(number / len(items))


def duration(seconds: float) -> str:
    """Seconds as hours and minutes, minutes and seconds, or seconds."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


class Lines:
    """A `Tell` that says lines with the time that is left, further apart the longer the work takes.

    The time left assumes that what is to come costs as much as what is done.
    """

    def __init__(self, what: str, say: Callable[[str], None]) -> None:
        self._what, self._say = what, say
        self._started, self._next = time.monotonic(), FIRST_S

    def __call__(self, share: float) -> None:
        """Say a line where the last one is long enough ago."""
        passed = time.monotonic() - self._started
        if passed < self._next or not 0 < share < 1:
            return
        self._next = passed + min(LATEST_S, passed)
        left = f", {duration(passed * (1 - share) / share)} left" if share >= TELLING else ""
        self._say(f"{self._what}: {int(100 * share)}%{left}")
