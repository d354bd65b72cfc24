"""What is said of the time that is left, held against a clock that the test turns."""

from __future__ import annotations

import pytest

from tumorseg_runtime.core import progress
from tumorseg_runtime.core.progress import Lines, duration, part, parts, silent, told


def lines_of(monkeypatch: pytest.MonkeyPatch, seconds: float, pieces: int = 100) -> list[str]:
    """What is said of work of so many seconds in equal pieces."""
    now, said = 1000.0, []
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    tell = Lines("reading", said.append)
    for _ in told(range(pieces), tell):
        now += seconds / pieces
    return said


def test_nothing_is_said_of_what_takes_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines_of(monkeypatch, 4.9) == []


def test_lines_come_further_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines_of(monkeypatch, 100) == [
        "reading: 5%, 1 min 35 s left",
        "reading: 10%, 1 min 30 s left",
        "reading: 20%, 1 min 20 s left",
        "reading: 40%, 1 min 0 s left",
        "reading: 80%, 20 s left",
    ]


def test_lines_come_every_minute_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    said = lines_of(monkeypatch, 6000, pieces=6000)
    assert said[-2:] == ["reading: 98%, 1 min 40 s left", "reading: 99%, 40 s left"]
    assert len(said) == 5 + 98


def test_parts_of_a_whole() -> None:
    shares: list[float] = []
    for number in range(2):
        for _ in told("abcd", part(shares.append, number, 2)):
            pass
    assert shares == [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0]
    assert list(told([], silent)) == []


def test_durations() -> None:
    said = {
        0.4: "0 s",
        59.4: "59 s",
        59.6: "1 min 0 s",
        3599.4: "59 min 59 s",
        3599.6: "1 h 0 min",
        7325: "2 h 2 min",
    }
    assert {seconds: duration(seconds) for seconds in said} == said


def test_parts_share_by_their_costs() -> None:
    said: list[float] = []
    first, second, nothing = parts(said.append, [1, 3, 0])
    first(0.5)
    first(1.0)
    second(1 / 3)
    second(1.0)
    nothing(1.0)
    assert said == pytest.approx([0.125, 0.25, 0.5, 1.0, 1.0])
