"""What a session on a GPU's stream does at its end, on a fake driver."""

from __future__ import annotations

import numpy as np
import pytest

from fakes.cuda import FakeDriver
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.core.session import InputForm, SessionInfo
from tumorseg_runtime.device import stream_session
from tumorseg_runtime.device.cuda import Gpu
from tumorseg_runtime.device.stream_session import StreamSession

CONTRACT = Contract(height=64, width=64)


class FirstPlane(StreamSession):
    """The first plane of one image."""

    released = 0

    def enqueue(self, count: int, source: int, target: int) -> None:
        self.gpu.copy(target, source, 64 * 64 * 4)

    def release(self) -> None:
        self.released += 1


def test_close_leaves_a_call_that_hangs_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_session, "CLOSE_WAIT_S", 0.01)
    session = FirstPlane(Gpu(FakeDriver()), CONTRACT, InputForm(), SessionInfo("fake", "cuda", "fp32", {}))
    batch = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    with session._lock:  # as a call that does not return
        session.close()
    assert np.array_equal(session.infer(batch), batch[:, :1])  # nothing was taken away from it
    session.close()
    session.close()
    assert session.released == 1
    with pytest.raises(BackendError, match="fake on cuda is closed: open it again"):
        session.infer(batch)
