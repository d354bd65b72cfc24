"""Our preprocessing through the real cuda-bindings and NVRTC, on the null driver."""

from __future__ import annotations

import importlib.util

import pytest

from gpu_null import programs
from gpu_null.floor import Floor

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("cuda"), reason="cuda-bindings is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_batch_has_the_cpus_bits_and_leaves_nothing(driver: Floor, dtype: str) -> None:
    answer = driver.call(programs.preprocess, [(1, 1), (50, 70), (33, 44, 3), (300, 200, 3)], dtype)
    same, steady = answer.value
    assert same
    assert answer.counts["live_blocks"] == 0
    assert (steady["allocations"], steady["pageable_copies"], steady["bytes_down"]) == (0, 0, 0)
    assert (steady["uploads"], steady["launches"], steady["synchronisations"]) == (1, 1, 1)
