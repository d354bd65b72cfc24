from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fakes.session import FakeSession
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError, OutputError
from tumorseg_runtime.core.session import checked_infer

CONTRACT = Contract(height=64, width=32)
BATCH = np.zeros((2, 3, 64, 32), np.float32)


class Answering(FakeSession):
    """A session with one fixed answer."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def infer(self, batch: Any) -> Any:
        return self.answer


def test_a_good_batch_goes_through() -> None:
    logits = checked_infer(FakeSession(gain=2.0), BATCH + 1, CONTRACT)
    assert logits.shape == (2, 1, 64, 32)
    assert (logits == 2).all()


@pytest.mark.parametrize(
    "batch",
    [BATCH[0], BATCH[:, :1], BATCH[:, :, :32], BATCH[:0], BATCH.astype(np.float64), BATCH.astype(np.float16)],
)
def test_wrong_batches_never_reach_the_session(batch: Any) -> None:
    session = FakeSession()
    with pytest.raises(InputError, match=r"expected float32 \(N, 3, 64, 32\)"):
        checked_infer(session, batch, CONTRACT)
    assert session.batches == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_input_that_is_not_finite_never_reaches_the_session(value: float) -> None:
    session = FakeSession()
    batch = BATCH.copy()
    batch[1, 2, 3, 4] = value
    with pytest.raises(InputError, match="not finite"):
        checked_infer(session, batch, CONTRACT)
    assert session.batches == []


def test_a_batch_beyond_the_limit_is_refused() -> None:
    with pytest.raises(InputError, match="batch holds 2 images, fake takes at most 1"):
        checked_infer(FakeSession(max_batch=1), BATCH, CONTRACT)


GOOD = np.zeros((2, 1, 64, 32), np.float32)


@pytest.mark.parametrize(
    "answer",
    [GOOD[:1], GOOD[:, 0], GOOD[:, :, :32], GOOD.astype(np.float16), GOOD.astype(bool), [], None],
    ids=["images", "axes", "height", "float16", "bool", "list", "none"],
)
def test_output_of_another_form_is_refused(answer: Any) -> None:
    with pytest.raises(OutputError, match=r"expected float32 \(2, 1, 64, 32\)"):
        checked_infer(Answering(answer), BATCH, CONTRACT)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_output_that_is_not_finite_is_refused(value: float) -> None:
    answer = GOOD.copy()
    answer[1, 0, 2, 3] = value
    with pytest.raises(OutputError, match="fake on cpu in fp32 returned 1 logits that are not finite"):
        checked_infer(Answering(answer), BATCH, CONTRACT)
