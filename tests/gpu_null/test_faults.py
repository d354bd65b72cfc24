"""What goes wrong on a GPU is one line, costs the batch that it met, and leaves nothing behind."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from gpu_null import faults
from gpu_null.copy_graph import copy_graph
from gpu_null.floor import Floor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.process,
    pytest.mark.skipif(importlib.util.find_spec("cuda") is None, reason="cuda-bindings is not installed"),
]


def test_close_gives_all_back_and_a_second_one_does_nothing(driver: Floor) -> None:
    live, said = driver.call(faults.closed).value
    assert set(live.values()) == {0}, live
    assert [one.startswith("BackendError: tensorrt on cuda is closed") for one in said] == [True, True]


def test_graphs_of_memory_that_moved_are_given_back(driver: Floor) -> None:
    counts = driver.call(faults.grows).value
    assert counts["live_graphs"] == 2  # one for each set
    assert counts["graph_launches"] > 0


def test_after_want_of_memory_no_graph_uses_what_was_given_back(driver: Floor) -> None:
    said, right = driver.call(faults.after_want_of_memory, variables={"NULL_CUDA_MB": "64"}).value
    assert "the GPU is out of memory" in said
    assert set(right) == {True}


def test_a_fork_is_told_and_touches_nothing(driver: Floor) -> None:
    (said, closing, calls), right = driver.call(faults.in_a_fork).value
    assert "Null GPU 0 was opened by process" in said
    assert "CUDA does not survive a fork" in said
    assert (closing, calls) == ("", "0")
    assert set(right) == {True}


def test_a_fork_of_a_program_whose_session_runs_apart_works(toolkit: Floor, tmp_path: Path) -> None:
    copy = copy_graph(tmp_path)
    assert set(toolkit.call(faults.apart_and_in_a_fork, copy, tmp_path / "bundle").value) == {True}


def test_what_cuda_refuses_in_a_capture_is_queued_without_a_graph(driver: Floor) -> None:
    answer = driver.call(faults.refuses_a_capture, violations=True)
    right, has_graph, counts = answer.value
    assert set(right) == {True}
    assert (has_graph, counts["graph_launches"], counts["live_graphs"]) == (False, 0, 0)
    assert set(answer.violations) == {"memory is taken inside of a capture"}


def test_a_batch_that_fails_in_the_middle_harms_no_other(driver: Floor) -> None:
    said, right = driver.call(faults.fails_in_the_middle).value
    assert "the GPU is out of memory" in said
    assert set(right) == {True}


@pytest.mark.parametrize("logits", [False, True, "float16"])
def test_an_engine_without_a_batch_of_one_serves_single_images(driver: Floor, logits: bool | str) -> None:
    assert set(driver.call(faults.batches_below_the_smallest, logits).value) == {True}


def test_segmenters_beside_each_other_and_on_a_second_gpu(driver: Floor) -> None:
    assert set(driver.call(faults.side_by_side).value) == {True}


def test_a_batch_of_a_process_that_is_gone_is_never_another_s(toolkit: Floor, tmp_path: Path) -> None:
    copy, fault = copy_graph(tmp_path), tmp_path / "fault"
    said, right = toolkit.call(
        faults.batches_of_another_process, copy, tmp_path / "bundle", fault,
        variables={"NULL_CUDA_FAULT": str(fault)},
    ).value  # fmt: skip
    assert "the GPU is lost to this process" in said[0]
    assert "a batch went with the process that had it" in said[1]
    assert set(right) == {True}


def test_masks_that_nobody_fetches_are_forgotten(toolkit: Floor, tmp_path: Path) -> None:
    kept, right = toolkit.call(faults.abandoned, copy_graph(tmp_path), tmp_path / "bundle").value
    assert kept <= 1
    assert set(right) == {True}
