"""Images of a batch are read and decided side by side; a single image starts no thread."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from fakes.session import FakeSession
from tumorseg_runtime import Contract, Frame, Prediction, Segmenter
from tumorseg_runtime.core.errors import InputError

CONTRACT = Contract(height=64, width=64)
IMAGES = [np.full((20, 20 + n), 40 * n, np.uint8) for n in range(4)]


class Noting(Segmenter):
    """Notes the threads that read, and lets later images be ready first."""

    def prepare(self, frame: Frame) -> np.ndarray:
        self.threads.add(threading.current_thread())
        if self.meeting is not None:
            self.meeting.wait(30)  # never passed by one thread alone
            time.sleep(0.002 * (24 - frame.pixels.shape[1]))
        return super().prepare(frame)

    threads: set[threading.Thread]
    meeting: threading.Barrier | None = None


def segmenter(monkeypatch: pytest.MonkeyPatch, batch_size: int = 4) -> Noting:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    one = Noting(CONTRACT, FakeSession(), batch_size)
    one.threads = set()
    return one


def test_order_is_kept_and_work_overlaps(monkeypatch: pytest.MonkeyPatch) -> None:
    one = segmenter(monkeypatch)
    one.meeting = threading.Barrier(2)
    before = threading.active_count()
    found = one.predict(IMAGES)
    assert [prediction.image.shape[1] for prediction in found] == [20, 21, 22, 23]
    assert len(one.threads) == 2
    assert threading.active_count() == before


def test_the_first_error_is_raised_and_no_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    with pytest.raises(InputError, match="image 1"):
        segmenter(monkeypatch).predict([IMAGES[0], np.zeros((3, 3, 7), np.uint8), IMAGES[1]])
    assert threading.active_count() == before


@pytest.mark.parametrize(("batch_size", "count"), [(1, 3), (4, 1)])
def test_single_images_start_no_thread(monkeypatch: pytest.MonkeyPatch, batch_size: int, count: int) -> None:
    one = segmenter(monkeypatch, batch_size)
    assert all(isinstance(prediction, Prediction) for prediction in one.predict(IMAGES[:count]))
    assert one.threads == {threading.current_thread()}
