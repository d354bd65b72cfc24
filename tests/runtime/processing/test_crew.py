from __future__ import annotations

import threading
import time

import pytest

from tumorseg_runtime.processing.crew import Crew


def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)


def test_results_keep_their_order_and_work_overlaps(monkeypatch: pytest.MonkeyPatch) -> None:
    two_cores(monkeypatch)
    meeting = threading.Barrier(2)

    def work(number: int) -> int:
        meeting.wait(30)  # never passed by one thread alone
        time.sleep(0.01 * (4 - number))
        return number * 10

    before = threading.active_count()
    with Crew(8) as crew:
        assert list(crew.map(work, range(4))) == [0, 10, 20, 30]
        assert list(crew.map(work, range(2))) == [0, 10]
    assert threading.active_count() == before


def test_the_first_error_is_raised_and_no_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    two_cores(monkeypatch)

    def work(number: int) -> int:
        if number:
            raise ValueError(str(number))
        return number

    before = threading.active_count()
    with Crew(4) as crew, pytest.raises(ValueError, match="1"):
        list(crew.map(work, range(4)))
    assert threading.active_count() == before


@pytest.mark.parametrize(("most", "pieces"), [(1, 3), (4, 1)])
def test_single_pieces_start_no_thread(most: int, pieces: int) -> None:
    here = threading.current_thread()
    with Crew(most) as crew:
        assert list(crew.map(lambda _: threading.current_thread(), range(pieces))) == [here] * pieces
