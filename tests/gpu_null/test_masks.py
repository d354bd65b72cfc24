"""Pixels in and masks out through the public door on the null GPU: right bits, and what a batch costs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from fakes.mean_bundle import make_mean_bundle
from gpu_null import decisions, masks
from gpu_null.copy_graph import copy_graph
from gpu_null.floor import Floor
from tumorseg_runtime.core.errors import BackendError, OutputError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.process,
    pytest.mark.skipif(importlib.util.find_spec("cuda") is None, reason="cuda-bindings is not installed"),
]
BATCHES = 4


@pytest.fixture(params=["tensorrt", "onnxruntime"])
def network(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Floor, Path | None]:
    """The stand-in for TensorRT; the real ONNX Runtime on a graph that copies images to logits."""
    if request.param == "tensorrt":
        return request.getfixturevalue("driver"), None
    return request.getfixturevalue("toolkit"), copy_graph(tmp_path)


@pytest.mark.parametrize("by_stream", [False, True])
@pytest.mark.parametrize("logits", [False, True, "float16"])
def test_a_batch_costs_what_docs_gpu_says(
    network: tuple[Floor, Path | None], logits: bool | str, by_stream: bool
) -> None:
    floor, copy = network
    before = floor.call(masks.before, BATCHES, copy).value["counts"]
    seen = floor.call(masks.after, BATCHES, logits, by_stream, copy).value
    after, trace = seen["counts"], seen["trace"]
    batches = after["uploads"]
    assert all(seen["right"])
    assert set(seen["logits"]) == {bool(logits)}
    assert set(seen["halves"]) == ({True} if logits == "float16" else set())
    assert batches == BATCHES or by_stream  # a stream takes what is ready
    waits, pageable = (2, 0) if copy is None else (3, 2)
    assert (before["synchronisations"], before["pageable_copies"]) == (waits * BATCHES, pageable * BATCHES)
    assert after["synchronisations"] == after["graph_launches"] == batches
    assert after["downloads"] == batches * (2 if logits == "float16" else 1)
    assert after["pageable_copies"] == after["allocations"] == 0
    if logits == "float16":
        assert after["bytes_down"] * 8 <= before["bytes_down"] * 5  # half of it, and the masks
    elif logits:
        assert after["bytes_down"] == before["bytes_down"]
    else:
        assert after["bytes_down"] * 8 <= before["bytes_down"]
    uploads = [index for index, event in enumerate(trace) if event.startswith("upload")]
    waits = [index for index, event in enumerate(trace) if event.startswith("synchronise")]
    assert len(uploads) == len(waits) == batches
    if not by_stream:
        assert all(later < wait for later, wait in zip(uploads[1:], waits, strict=False)), trace


def test_a_row_of_the_benchmark_serves_and_is_timed_by_events(network: tuple[Floor, Path | None]) -> None:
    floor, copy = network
    seen = floor.call(masks.timed, copy).value
    assert seen["right"] == [True] * masks.BATCH
    parts = {part: seen["stages"][part] for part in ("upload", "compute", "download")}
    assert parts == dict.fromkeys(parts, 10**6)  # the null GPU's events are a millisecond apart
    assert seen["stages"]["preprocess"] == 0  # part of infer
    assert (seen["counts"]["synchronisations"], seen["counts"]["allocations"]) == (1, 0)


@pytest.mark.parametrize("logits", [False, True, "float16"])
@pytest.mark.parametrize("network", ["onnxruntime"], indirect=True)
def test_an_error_of_cuda_that_stays_is_survived_by_another_process(
    network: tuple[Floor, Path | None], tmp_path: Path, logits: bool | str
) -> None:
    floor, copy = network
    fault = tmp_path / "fault"
    seen = floor.call(
        masks.survives, copy, tmp_path / "bundle", fault, logits, variables={"NULL_CUDA_FAULT": str(fault)}
    ).value
    assert set(seen["right"]) == {True}
    (said,) = seen["said"]
    assert "the GPU is lost to this process" in said
    assert seen["other process"]
    assert seen["apart"]


def test_images_of_any_size_get_the_masks_and_margins_of_the_cpu(network: tuple[Floor, Path | None]) -> None:
    floor, copy = network
    assert set(floor.call(masks.any_sizes, copy).value["right"]) == {True}


def test_where_a_decision_hangs_on_rounding_the_logits_come_down(driver: Floor) -> None:
    right, downloads = driver.call(masks.unsure).value
    assert right == [True] * 3
    assert downloads == 2 + 2  # of two batches, and of the two images that are resized


@pytest.mark.parametrize("rule", ["sigmoid", "softmax"])
def test_several_classes_are_decided_by_the_rule_ties_included(driver: Floor, rule: str) -> None:
    assert set(driver.call(decisions.of_several_classes, rule).value) == {True}


def test_logits_that_are_not_finite_become_no_mask(driver: Floor) -> None:
    with pytest.raises(OutputError, match=r"logits that are not finite for images \[0, 1\] of a batch"):
        driver.call(masks.not_finite)


def test_batches_that_nobody_waits_for_block_nobody(driver: Floor) -> None:
    assert set(driver.call(masks.taken_by_turns).value) == {True}


def test_a_gpu_that_decides_otherwise_is_refused_at_opening(driver: Floor) -> None:
    with pytest.raises(BackendError, match=r"otherwise than the CPU .* bring the logits down"):
        driver.call(decisions.kernels_that_differ)


def test_the_one_loop_holds_masks_and_margins_of_a_gpu(driver: Floor) -> None:
    assert driver.call(decisions.replayed, 0.0).value == []
    assert any("margin is" in line for line in driver.call(decisions.replayed, 0.5).value)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_what_build_and_open_prove_and_serve_is_that_way(driver: Floor, tmp_path: Path, device: str) -> None:
    bundle = make_mean_bundle(tmp_path / "bundle")
    seen = driver.call(masks.built_and_opened, bundle.root, tmp_path / "device", device).value
    assert set(seen["masks_alone"]) == {True}
    assert seen["counts"]["synchronisations"] == seen["counts"]["graph_launches"] == 4
    assert seen["counts"]["pageable_copies"] == seen["counts"]["allocations"] == 0
    assert seen["repr"].startswith(f"<Segmenter tensorrt {device} fp16")
    assert seen["gpu"] == f"Null GPU {device.count(':')}"
    assert seen["kernels were there"]
