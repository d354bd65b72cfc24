"""Our preprocessing through the real cuda-bindings and NVRTC, on the null driver."""

from __future__ import annotations

import importlib.util

import pytest

from gpu_null import programs
from gpu_null.floor import Floor
from tumorseg_runtime.core.errors import InputError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("cuda"), reason="cuda-bindings is not installed"),
]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_batch_has_the_cpus_bits_and_leaves_nothing(driver: Floor, dtype: str) -> None:
    answer = driver.call(programs.preprocess, [(1, 1), (50, 70), (33, 44, 3), (300, 200, 3)], dtype)
    same, steady = answer.value
    assert same
    for what in ("live_blocks", "live_streams", "live_contexts"):
        assert answer.counts[what] == 0
    assert (steady["allocations"], steady["pageable_copies"], steady["bytes_down"]) == (0, 0, 0)
    assert (steady["uploads"], steady["launches"], steady["synchronisations"]) == (1, 1, 1)


def test_an_interface_that_names_no_stream_is_waited_for(driver: Floor) -> None:
    """Version 2 is PyTorch's: what it has queued may still run. Version 3 says whether, and where."""
    assert driver.call(programs.preprocess_foreign, 0, 2).value == (True, 2)
    assert driver.call(programs.preprocess_foreign, 0, 3).value == (True, 1)
    assert driver.call(programs.preprocess_foreign, 0, 3, True).value == (True, 2)


def test_a_tensor_on_another_device_is_refused(driver: Floor) -> None:
    with pytest.raises(InputError, match="image 0 lies in memory of cuda:1, expected cuda:0"):
        driver.call(programs.preprocess_foreign, 1, 3)


def test_the_context_of_the_program_stays_its_own(driver: Floor) -> None:
    uuid = "GPU-11111111-1111-1111-1111-111111111111"
    assert driver.call(programs.contexts_on_two_devices).value == [True, True, "Null GPU 1", uuid]
