from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fakes.session import FakeSession
from tumorseg_runtime import Contract, Segmenter
from tumorseg_runtime.core.errors import BackendError, InputError, OutputError
from tumorseg_runtime.images.read import write_png
from tumorseg_runtime.inference.stage_queue import CancelledError, StageQueue
from tumorseg_runtime.inference.stream import STAGES

CONTRACT = Contract(height=64, width=64)


class GatedSession(FakeSession):
    """Waits for a permit before each inference; says when it waits."""

    def __init__(self) -> None:
        super().__init__()
        self.permits = threading.Semaphore(0)
        self.waiting = threading.Semaphore(0)

    def infer(self, batch: Any) -> Any:
        self.waiting.release()
        self.permits.acquire()
        return super().infer(batch)


def gray(value: int) -> npt.NDArray[np.uint8]:
    return np.full((10, 12), value, np.uint8)


def streams() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tumorseg-stream"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    assert streams() == []
    yield
    assert streams() == []


def test_results_equal_those_of_predict_in_order(small_bundle: Path, scene: Any) -> None:
    images = [scene(40 + 7 * i, 90 - 5 * i, colour=i % 2 == 1, seed=i) for i in range(9)]
    segmenter = Segmenter.open(small_bundle, batch_size=4, threads=1)
    expected = segmenter.predict(images)
    assert any(prediction.mask.any() for prediction in expected)
    for batch_size in (1, 3, 4):
        results = list(segmenter.stream(iter(images), batch_size=batch_size))
        assert [result.index for result in results] == list(range(9))
        for result, one in zip(results, expected, strict=True):
            assert result.prediction is not None
            assert (result.name, result.error, result.dropped) == (one.name, None, 0)
            np.testing.assert_array_equal(result.prediction.masks, one.masks)
            assert result.prediction.lesions == one.lesions


def test_stages_and_their_seconds() -> None:
    (result,) = Segmenter(CONTRACT, FakeSession()).stream([gray(9)])
    assert set(result.seconds) == set(STAGES)
    assert all(value >= 0 for value in result.seconds.values())
    assert sum(v for k, v in result.seconds.items() if k != "total") <= result.seconds["total"]


def test_stages_overlap() -> None:
    """While one image is in the backend the next ones are taken, decoded and wait for it."""
    session = GatedSession()
    ready = Segmenter(CONTRACT, session)
    prepared: list[str] = []
    prepare = ready.prepare

    def noted(frame: Any) -> Any:
        prepared.append(frame.name)
        return prepare(frame)

    ready.prepare = noted  # type: ignore[method-assign]
    results = ready.stream(gray(i) for i in range(4))
    consumer = threading.Thread(target=lambda: [next(results) for _ in range(4)])
    consumer.start()
    session.waiting.acquire()
    end = time.monotonic() + 30
    while len(prepared) < 3:  # one in the backend, one ready, one that waits for its place
        assert time.monotonic() < end
        time.sleep(0.002)
    session.permits.release(4)
    consumer.join()
    results.close()
    assert prepared == [f"image {i}" for i in range(4)]


def test_the_oldest_waiting_images_are_dropped_and_counted() -> None:
    session = GatedSession()
    taken = threading.Event()

    def live() -> Iterator[npt.NDArray[np.uint8]]:
        for value in range(50):
            yield gray(value)
        taken.set()

    results = Segmenter(CONTRACT, session).stream(live(), max_pending=2, drop="oldest")
    found: list[Any] = []
    consumer = threading.Thread(target=lambda: found.extend(results))
    consumer.start()
    assert taken.wait(30)
    session.permits.release(50)
    consumer.join()
    indices = [result.index for result in found]
    assert indices == sorted(set(indices))
    assert indices[-2:] == [48, 49]
    assert len(found) <= 2 + 3 + 1  # waiting; in the backend, ready, being prepared; and one of luck
    assert sum(result.dropped for result in found) == 50 - len(found)
    for before, result in zip([-1, *indices], found, strict=False):
        assert result.dropped == result.index - before - 1
        assert result.prediction.image[0, 0] == result.index


def test_block_drops_nothing_and_bounds_what_is_taken() -> None:
    session = GatedSession()
    taken: list[int] = []

    def source() -> Iterator[npt.NDArray[np.uint8]]:
        for value in range(30):
            taken.append(value)
            yield gray(value)

    results = Segmenter(CONTRACT, session).stream(source(), max_pending=2)
    found: list[Any] = []
    consumer = threading.Thread(target=lambda: found.extend(results))
    consumer.start()
    session.waiting.acquire()
    time.sleep(0.2)
    assert len(taken) <= 2 + 3 + 5  # max_pending, 3 * batch_size + 5
    session.permits.release(30)
    consumer.join()
    assert [result.index for result in found] == list(range(30))
    assert not any(result.dropped for result in found)


def test_a_bad_image_is_its_own_result(tmp_path: Path) -> None:
    write_png(tmp_path / "good.png", gray(7))
    (tmp_path / "bad.png").write_bytes(b"nothing")
    images = [tmp_path / "good.png", str(tmp_path / "bad.png"), np.zeros((3, 3), np.float32), gray(1)]
    results = list(Segmenter(CONTRACT, FakeSession()).stream(images))
    assert [result.error is None for result in results] == [True, False, False, True]
    assert [result.prediction is None for result in results] == [False, True, True, False]
    assert results[0].name == str(tmp_path / "good.png")
    assert "expected a PNG" in str(results[1].error)
    assert str(results[2].error).startswith("image 2: got dtype float32")
    assert all("total" in result.seconds for result in results)


def test_one_image_whose_logits_are_broken_spares_its_batch_mates() -> None:
    class Poisoned(FakeSession):
        def infer(self, batch: Any) -> Any:
            logits = super().infer(batch)
            logits[batch.max(axis=(1, 2, 3)) > 2.2] = np.nan
            return logits

    session = Poisoned()
    images = [gray(v) for v in (10, 20, 255, 30)]
    results = list(Segmenter(CONTRACT, session).stream(images, batch_size=4, max_pending=4))
    assert [type(result.error) for result in results] == [type(None), type(None), OutputError, type(None)]


@pytest.mark.fault
def test_a_backend_that_hangs_is_reported_for_its_image_and_the_stream_goes_on() -> None:
    hanging = GatedSession()
    segmenter = Segmenter(CONTRACT, hanging, reopen=FakeSession)
    results = list(segmenter.stream([gray(i) for i in range(3)], timeout_s=0.2))
    assert isinstance(results[0].error, BackendError)
    assert [result.error for result in results[1:]] == [None, None]
    hanging.permits.release()


def test_an_error_of_the_source_comes_after_the_results_before_it() -> None:
    def source() -> Iterator[npt.NDArray[np.uint8]]:
        yield gray(1)
        yield gray(2)
        raise ConnectionError("camera gone")

    results = Segmenter(CONTRACT, FakeSession()).stream(source())
    assert [next(results).index, next(results).index] == [0, 1]
    with pytest.raises(ConnectionError, match="camera gone"):
        next(results)


@pytest.mark.fault
def test_a_fault_in_a_stage_is_raised_and_not_swallowed() -> None:
    segmenter = Segmenter(CONTRACT, FakeSession())

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    segmenter.decide = broken  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        list(segmenter.stream([gray(1), gray(2)]))


@pytest.mark.parametrize("drop", ["oldest", "block"])
def test_a_consumer_that_stops_early_leaves_no_thread(drop: str) -> None:
    def endless() -> Iterator[npt.NDArray[np.uint8]]:
        while True:
            yield gray(1)

    segmenter = Segmenter(CONTRACT, FakeSession())
    for result in segmenter.stream(endless(), drop=drop):
        assert result.prediction is not None
        break
    gc.collect()
    assert streams() == []
    results = segmenter.stream(endless(), drop=drop)
    next(results)
    assert len(streams()) == 4
    results.close()
    assert streams() == []
    segmenter.stream(endless(), drop=drop).close()  # never begun


def test_a_source_that_blocks_holds_nobody_else_up() -> None:
    gate = threading.Event()

    def camera() -> Iterator[npt.NDArray[np.uint8]]:
        yield gray(1)
        gate.wait()

    results = Segmenter(CONTRACT, FakeSession()).stream(camera())
    next(results)
    results.close()
    (left,) = streams()
    gate.set()
    left.join()


def test_many_images_hold_no_memory() -> None:
    import tracemalloc

    def source() -> Iterator[npt.NDArray[np.uint8]]:
        for _ in range(60):
            yield np.zeros((500, 1000), np.uint8)

    tracemalloc.start()
    for result in Segmenter(CONTRACT, FakeSession()).stream(source()):
        assert result.error is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 15 * 4_000_000  # an image has 0.5 MB, its mask 0.5, its resized logits 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_pending": 0}, "max_pending is 0, expected 1"),
        ({"drop": "newest"}, "drop is 'newest', expected one of oldest, block"),
        ({"batch_size": 5}, "batch size is 5, expected 1 to 4"),
        ({"timeout_s": -1}, "timeout is -1 s"),
    ],
)
def test_options_are_checked_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Segmenter(CONTRACT, FakeSession()).stream([], **options)


def test_a_channel_ends_and_is_cancelled() -> None:
    channel: StageQueue[int] = StageQueue(2)
    channel.put(1)
    channel.put(2)
    channel.finish()
    assert list(channel) == [1, 2]
    channel.cancel()
    with pytest.raises(CancelledError):
        channel.take(1)
    with pytest.raises(CancelledError):
        channel.put(3)
