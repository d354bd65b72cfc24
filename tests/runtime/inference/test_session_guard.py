from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.session import FakeSession
from tumorseg_runtime import Contract, Segmenter
from tumorseg_runtime.core.errors import BackendError, InputError, ParityError
from tumorseg_runtime.inference.session_guard import MOST_ABANDONED, SessionKeeper, run_within

pytestmark = pytest.mark.fault

CONTRACT = Contract(height=64, width=64)
BATCH = np.zeros((1, 3, 64, 64), np.float32)
SHORT, LONG = 0.05, 30.0


class HangingSession(FakeSession):
    """Hangs in `infer` until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()
        self.closed = threading.Event()

    def infer(self, batch: Any) -> Any:
        self.release.wait()
        return super().infer(batch)

    def close(self) -> None:
        self.closed.set()


class DyingSession(FakeSession):
    def infer(self, batch: Any) -> Any:
        raise BackendError("the worker process ended with status -11")


class ProcessSession(HangingSession):
    """Its network hangs in a process of its own, which `interrupt` ends; the next one works."""

    restarts = True

    def infer(self, batch: Any) -> Any:
        if not self.release.is_set():
            self.release.wait()
            raise BackendError("the process was ended")
        return FakeSession.infer(self, batch)

    def interrupt(self) -> None:
        self.release.set()


def wait_for_threads(name: str) -> None:
    """Until no thread of this name is left; fails after a while."""
    end = time.monotonic() + LONG
    while any(thread.name == name for thread in threading.enumerate()):
        assert time.monotonic() < end, threading.enumerate()
        time.sleep(0.005)


def test_a_hanging_session_is_reported_and_replaced_and_the_next_call_works() -> None:
    hanging, opened = HangingSession(), []

    def reopen() -> FakeSession:
        opened.append(FakeSession())
        return opened[-1]

    segmenter = Segmenter(CONTRACT, hanging, reopen=reopen)
    image = np.full((20, 30), 200, np.uint8)
    with pytest.raises(BackendError, match=r"fake on cpu gave no answer within 0.05 s for a batch of 1, its"):
        segmenter.predict(image, timeout_s=SHORT)
    assert segmenter.predict(image, timeout_s=LONG).mask.all()
    assert segmenter.predict(image).mask.all()
    assert len(opened) == 1
    assert opened[0].batches == [1, 1]
    assert hanging.closed.is_set()
    assert any(thread.name == "tumorseg-deadline" for thread in threading.enumerate())  # the abandoned call
    hanging.release.set()
    wait_for_threads("tumorseg-deadline")


def test_a_dying_session_is_replaced_with_and_without_a_deadline() -> None:
    for timeout_s in (None, LONG):
        keeper = SessionKeeper(DyingSession(), CONTRACT, FakeSession)
        with pytest.raises(BackendError, match="status -11"):
            keeper.infer(BATCH, timeout_s)
        assert keeper.infer(BATCH, timeout_s).shape == (1, 1, 64, 64)


def test_a_session_with_a_process_of_its_own_is_interrupted_and_kept() -> None:
    session = ProcessSession()
    keeper = SessionKeeper(session, CONTRACT, lambda: pytest.fail("opened"))
    with pytest.raises(BackendError, match=r"gave no answer within 0.05 s .* its process was ended"):
        keeper.infer(BATCH, SHORT)
    wait_for_threads("tumorseg-deadline")
    assert keeper.infer(BATCH, LONG).shape == (1, 1, 64, 64)
    assert not session.closed.is_set()


def test_without_a_way_to_open_another_the_session_stays() -> None:
    keeper = SessionKeeper(DyingSession(), CONTRACT)
    for _ in range(2):
        with pytest.raises(BackendError, match="status -11"):
            keeper.infer(BATCH)


def test_a_failed_reopening_is_reported_and_tried_again() -> None:
    attempts: list[int] = []

    def reopen() -> FakeSession:
        attempts.append(1)
        if len(attempts) < 3:
            raise ParityError("self-test failed")
        return FakeSession()

    keeper = SessionKeeper(DyingSession(), CONTRACT, reopen)
    with pytest.raises(BackendError, match="status -11"):
        keeper.infer(BATCH)
    faults = []
    while not faults or len(attempts) < 3:
        try:
            keeper.infer(BATCH, LONG)
        except BackendError as error:
            faults.append(str(error))
    assert keeper.infer(BATCH, LONG).shape == (1, 1, 64, 64)
    assert all("could not be opened again (self-test failed)" in fault for fault in faults)
    assert len(attempts) == 3


def test_a_call_does_not_wait_beyond_its_deadline_for_the_reopening() -> None:
    gate = threading.Event()

    def reopen() -> FakeSession:
        gate.wait()
        return FakeSession()

    keeper = SessionKeeper(DyingSession(), CONTRACT, reopen)
    with pytest.raises(BackendError, match="status -11"):
        keeper.infer(BATCH)
    with pytest.raises(BackendError, match=r"was not ready within 0.05 s"):
        keeper.infer(BATCH, SHORT)
    gate.set()
    assert keeper.infer(BATCH, LONG).shape == (1, 1, 64, 64)
    wait_for_threads("tumorseg-reopen")


def test_abandoned_calls_are_bounded() -> None:
    sessions = [HangingSession() for _ in range(MOST_ABANDONED + 1)]
    rest = iter(sessions[1:])
    keeper = SessionKeeper(sessions[0], CONTRACT, lambda: next(rest))
    for _ in range(MOST_ABANDONED):
        with pytest.raises(BackendError, match="gave no answer"):
            keeper.infer(BATCH, SHORT)
    with pytest.raises(BackendError, match=r"4 abandoned calls of fake still hold memory, .* restart"):
        keeper.infer(BATCH, SHORT)
    for session in sessions:
        session.release.set()
    wait_for_threads("tumorseg-deadline")
    assert keeper.infer(BATCH, LONG).shape == (1, 1, 64, 64)


def test_16_threads_that_meet_one_dead_session_open_one_other() -> None:
    opened: list[FakeSession] = []

    def reopen() -> FakeSession:
        opened.append(FakeSession())
        return opened[-1]

    barrier = threading.Barrier(16)

    class Together(FakeSession):
        def infer(self, batch: Any) -> Any:
            barrier.wait()
            raise BackendError("gone")

    keeper = SessionKeeper(Together(), CONTRACT, reopen)
    errors: list[BackendError] = []

    def work() -> None:
        try:
            keeper.infer(BATCH, LONG)
        except BackendError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(error) for error in errors] == ["gone"] * 16
    keeper.infer(BATCH, LONG)
    assert len(opened) == 1


def test_a_fault_of_the_input_replaces_nothing() -> None:
    keeper = SessionKeeper(FakeSession(), CONTRACT, lambda: pytest.fail("opened"))
    for timeout_s in (None, LONG):
        with pytest.raises(InputError, match="batch is float32"):
            keeper.infer(BATCH[:, :1], timeout_s)
    assert keeper.infer(BATCH, LONG).shape == (1, 1, 64, 64)


def test_opening_has_a_deadline(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Segmenter.open(small_bundle, self_test=True, timeout_s=LONG).info.backend == "onnxruntime"
    gate = threading.Event()
    monkeypatch.setattr("tumorseg_runtime.backends.selection.open_session", lambda *_, **__: gate.wait())
    with pytest.raises(BackendError, match=r"onnxruntime on cpu was not open within 0.05 s"):
        Segmenter.open(small_bundle, timeout_s=SHORT)
    gate.set()
    wait_for_threads("tumorseg-deadline")


def test_a_segmenter_of_a_bundle_opens_its_session_again_and_tests_it(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tumorseg_runtime.backends.onnxruntime import OnnxRuntimeSession
    from tumorseg_runtime.parity import verify

    segmenter = Segmenter.open(small_bundle, self_test=True, threads=1)
    tested: list[str] = []

    def noted(*args: Any, **kwargs: Any) -> Any:
        tested.append("again")
        return self_test(*args, **kwargs)

    self_test = verify.self_test
    monkeypatch.setattr(verify, "self_test", noted)
    image = np.full((20, 30), 200, np.uint8)
    with monkeypatch.context() as broken:
        broken.setattr(OnnxRuntimeSession, "infer", DyingSession.infer)
        with pytest.raises(BackendError, match="status -11"):
            segmenter.predict(image)
        wait_for_threads("tumorseg-reopen")
    # the self-test failed while the class was broken; the next call tries once more
    for _ in range(2):
        try:
            assert segmenter.predict(image, timeout_s=LONG).mask.all()
            break
        except BackendError:
            continue
    assert tested == ["again", "again"]


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_a_deadline_is_a_positive_number(timeout_s: float) -> None:
    segmenter = Segmenter(CONTRACT, FakeSession())
    with pytest.raises(InputError, match="expected a positive number"):
        segmenter.predict(np.zeros((4, 4), np.uint8), timeout_s=timeout_s)


def test_work_that_raises_raises_in_the_caller() -> None:
    def fail() -> Callable[..., None]:
        raise KeyError("x")

    with pytest.raises(KeyError):
        run_within(fail, LONG)
    assert run_within(lambda: 7, LONG) == 7
