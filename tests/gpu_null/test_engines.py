"""A TensorRT session on the null GPU: real cuda-bindings, and the stand-in for TensorRT (`test_stand_in`)."""

from __future__ import annotations

import importlib.util

import pytest

from gpu_null import engines
from gpu_null.floor import Floor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("cuda"), reason="cuda-bindings is not installed"),
]


def test_every_kind_of_batch_is_right_waits_once_and_takes_no_memory(driver: Floor) -> None:
    answer = driver.call(engines.serve)
    for name, (right, counts, trace) in answer.value.items():
        assert right, name
        assert (counts["synchronisations"], counts["allocations"], counts["pageable_copies"]) == (1, 0, 0)
        assert ("copy 221184" in trace) == (name == "misaligned")
        assert counts["bytes_up"] == (221184 if name == "host" else 0)
    for what in ("live_blocks", "live_streams", "live_contexts"):
        assert answer.counts[what] == 0


def test_tensorrt_rtx_compiles_what_serves_and_keeps_it(driver: Floor) -> None:
    first, second = driver.call(engines.open_twice, True).value
    assert first == [("compiled", "EAGER", 1), ("compiled", "EAGER", 2)]
    assert second == []
    assert driver.call(engines.open_twice, False).value == [[], []]
