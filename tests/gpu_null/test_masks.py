"""Pixels in and masks out on the null GPU: right bits, and what a batch costs."""

from __future__ import annotations

import importlib.util

import pytest

from gpu_null import masks
from gpu_null.floor import Floor
from tumorseg_runtime.core.errors import OutputError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.process,
    pytest.mark.skipif(importlib.util.find_spec("cuda") is None, reason="cuda-bindings is not installed"),
]
BATCHES = 4


def test_a_batch_costs_what_docs_gpu_says(driver: Floor) -> None:
    before = driver.call(masks.before, BATCHES).value["counts"]
    seen = driver.call(masks.after, BATCHES).value
    after, trace = seen["counts"], seen["trace"]
    assert all(seen["right"])
    assert before["synchronisations"] == 2 * BATCHES
    assert after["synchronisations"] == BATCHES
    assert after["pageable_copies"] == after["allocations"] == 0
    assert after["bytes_down"] * 8 <= before["bytes_down"]
    assert after["bytes_up"] <= before["bytes_up"]
    assert after["graph_launches"] == BATCHES
    uploads = [index for index, event in enumerate(trace) if event.startswith("upload")]
    waits = [index for index, event in enumerate(trace) if event.startswith("synchronise")]
    assert len(uploads) == len(waits) == BATCHES
    assert all(later < wait for later, wait in zip(uploads[1:], waits, strict=False)), trace


def test_batches_of_other_sizes_and_memory_that_grows(driver: Floor) -> None:
    assert driver.call(masks.other_sizes).value == [True] * 12


def test_logits_that_are_not_finite_become_no_mask(driver: Floor) -> None:
    with pytest.raises(OutputError, match=r"images \[0, 1\] of a batch have logits that are not finite"):
        driver.call(masks.not_finite)
