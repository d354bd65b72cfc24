"""Deploy forms on the null GPU go the way of the others: pixels up, one bit for each of the network's pixels
down, resized on the host."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from gpu_null import deploys
from gpu_null.copy_graph import copy_bytes
from gpu_null.floor import Floor
from tumorseg_runtime.core.errors import OutputError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.process,
    pytest.mark.skipif(importlib.util.find_spec("cuda") is None, reason="cuda-bindings is not installed"),
]
BATCHES = 4


@pytest.mark.parametrize("by_stream", [False, True])
@pytest.mark.parametrize("form", ["onnx-deploy", "onnx-deploy-gray"])
@pytest.mark.parametrize("backend", ["tensorrt", "onnxruntime"])
def test_a_deploy_form_costs_what_docs_gpu_says(
    request: pytest.FixtureRequest, tmp_path: Path, backend: str, form: str, by_stream: bool
) -> None:
    floor: Floor = request.getfixturevalue("driver" if backend == "tensorrt" else "toolkit")
    copy = None if backend == "tensorrt" else copy_bytes(tmp_path, 1 if form.endswith("gray") else 3)
    seen = floor.call(deploys.serve, form, BATCHES, by_stream, copy).value
    before, after, trace = seen["before"], seen["counts"], seen["trace"]
    assert set(seen["right"]) == {True}
    batches = after["uploads"]
    assert batches == BATCHES or by_stream  # a stream takes what is ready
    assert after["synchronisations"] == after["graph_launches"] == after["downloads"] == batches
    assert after["pageable_copies"] == after["allocations"] == 0
    logits = 4 * seen["values"] * 2 * BATCHES  # bytes of what a plain network would bring down
    assert before["bytes_down"] == logits // 4
    assert after["bytes_down"] <= before["bytes_down"] // 8 + 12 * deploys.BATCH * batches
    assert after["bytes_down"] * 31 <= logits
    if not by_stream:
        uploads = [index for index, event in enumerate(trace) if event.startswith("upload")]
        waits = [index for index, event in enumerate(trace) if event.startswith("synchronise")]
        assert all(later < wait for later, wait in zip(uploads[1:], waits, strict=False)), trace


def test_masks_without_a_decision_become_none(toolkit: Floor, tmp_path: Path) -> None:
    said = "onnxruntime-deploy on cuda in fp32 returned 9 pixels without a decision and 3 that are neither"
    with pytest.raises(OutputError, match=said):
        toolkit.call(deploys.no_decision, copy_bytes(tmp_path, 3))
