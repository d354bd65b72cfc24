"""The null driver is strict: each rule of CUDA has a program that breaks it and one that does not."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest

from gpu_null import rules
from gpu_null.floor import Floor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("cuda"), reason="cuda-bindings is not installed"),
]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (rules.without_context, "without a current context"),
        (rules.too_long_a_copy, "4097 bytes at"),
        (rules.writes_behind_the_end, "behind the end of a block of 4096 bytes"),
        (rules.freed_twice, "was not taken as device memory"),
        (rules.memory_in_a_capture, "inside of a capture"),
    ],
)
def test_what_a_gpu_answers_with_garbage_is_a_violation(
    driver: Floor, program: Callable[[], object], said: str
) -> None:
    assert any(said in line for line in driver.call(program, violations=True).violations)


def test_a_stream_waits_for_what_another_writes(driver: Floor) -> None:
    with pytest.raises(
        AssertionError, match="stream order: stream 3 reads 4096 bytes that stream 2 may still"
    ):
        driver.call(rules.two_streams, False)
    driver.call(rules.two_streams, True)


def test_work_runs_as_late_as_cuda_allows(driver: Floor) -> None:
    assert driver.call(rules.reads_before_it_waits).value == (False, True)
    assert driver.call(rules.overwrites_what_is_to_be_uploaded).value == 2


def test_a_pageable_download_waits_and_is_counted(driver: Floor) -> None:
    answer = driver.call(rules.pageable_download)
    assert answer.value == 0xA5
    assert (answer.counts["pageable_copies"], answer.counts["synchronisations"]) == (1, 1)
    assert "download 4096 pageable" in answer.trace


def test_what_is_not_given_back_is_counted(driver: Floor) -> None:
    assert driver.call(rules.leaks).counts["live_blocks"] == 1


def test_a_graph_is_launched_with_what_lies_in_its_memory_then(driver: Floor) -> None:
    total, counts = driver.call(rules.graph).value
    assert total == 34
    assert (counts["graph_launches"], counts["synchronisations"], counts["allocations"]) == (2, 2, 0)


def test_a_sticky_error_stays(driver: Floor) -> None:
    first, second = driver.call(rules.sticky_error).value
    for name, said in (("cuStreamSynchronize", first), ("cuMemAlloc", second)):
        assert f"{name} failed (CUDA_ERROR_ILLEGAL_ADDRESS): the GPU is lost to this process" in said
