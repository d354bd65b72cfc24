"""The cases of the export matrix that CI runs; the others run by the command (docs/export-matrix.md)."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tumorseg_benchmarks.export_matrix import checks
from tumorseg_benchmarks.export_matrix.cases import CHANNELS, CLASSES, COVER, ENCODERS, Case, whole
from tumorseg_benchmarks.export_matrix.checks import CHECKS, FAILED, NOT_MADE, PASSED, REFUSED, compare, run
from tumorseg_export.onnx.export import strip
from tumorseg_runtime.core.errors import CheckFailedError
from tumorseg_train.networks.models import ARCHITECTURES

BATCH_IS_READ = {"dpt"}  # a class token for each image


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("case", COVER, ids=lambda case: case.name)
def test_a_network_exports_to_a_graph_that_is_right(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[onnx.ModelProto] = []
    monkeypatch.setattr(checks, "strip", lambda graph: [graphs.append(graph), strip(graph)])
    record = run(case, tmp_path)
    assert record["status"] == PASSED, record
    (nodes,) = [graph.graph.node for graph in graphs]
    assert not [node.name for node in nodes if node.op_type == "Resize" and len(node.input) > 3]  # by `sizes`
    assert [node.op_type for node in nodes].count("Shape") == (case.architecture in BATCH_IS_READ)
    assert set(record["checks"]) == set(CHECKS)
    assert not list(tmp_path.iterdir())
    if left := [fault for fault in record["checks"].values() if fault.startswith(NOT_MADE)]:
        pytest.skip("; ".join(left))  # all others were made


def test_the_cover_has_every_architecture_encoder_and_interface() -> None:
    assert {case.architecture for case in COVER} == set(ARCHITECTURES)
    assert {case.encoder for case in COVER} == set(ENCODERS)
    pairs = set(itertools.product(CHANNELS, CLASSES))
    assert {(case.channels, case.classes) for case in COVER} == pairs
    assert len(whole()) == len(set(whole())) == len(ARCHITECTURES) * len(ENCODERS) * len(pairs)


def test_a_combination_that_smp_refuses_is_recorded_with_its_reason(tmp_path: Path) -> None:
    record = run(Case("dpt", "resnet18", 3, 1), tmp_path)
    assert record["status"] == REFUSED
    assert "Only Timm encoders are supported for DPT" in record["reason"]
    assert record["checks"] == {}


def test_a_fault_is_recorded_and_the_next_check_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong:
        def __init__(self, case: Case, folder: Path) -> None:
            self.file = folder / "none.onnx"

    def absent(network: object) -> None:
        raise checks.SkippedError("polygraphy is not installed")

    def breaks(network: object) -> None:
        raise onnx.checker.ValidationError("No Op registered\nmore")

    monkeypatch.setattr(checks, "Built", Wrong)
    monkeypatch.setattr(checks, "CHECKS", {"one": breaks, "two": absent, "three": lambda network: None})
    record = run(COVER[0], tmp_path)
    assert record["status"] == FAILED
    assert record["reason"] == "one: ValidationError: No Op registered"
    assert record["checks"] == {
        "one": "ValidationError: No Op registered",
        "two": "not made: polygraphy is not installed",
        "three": "",
    }


def test_logits_that_differ_are_a_fault() -> None:
    logits = torch.randn(1, 1, 8, 8).numpy()
    network: Any = SimpleNamespace(logits=logits, exact=logits + np.float32(0.02))
    for right in (logits + np.float32(1e-6), network.exact):  # PyTorch's own rounding is no fault of a tool's
        compare(right, network)
    with pytest.raises(CheckFailedError, match="shape"):
        compare(logits[:, :, :4], network)
    for wrong in (logits + np.float32(0.01), logits * np.float32("nan")):
        with pytest.raises(CheckFailedError, match="of their standard deviation"):
            compare(wrong, network)


def test_the_reference_evaluator_runs_once_for_each_pair() -> None:
    first = [(case.architecture, case.encoder) for case in whole() if case.first]
    assert len(first) == len(set(first)) == len(ARCHITECTURES) * len(ENCODERS)
    assert all(case.first for case in COVER)


def test_lint_names_what_nobody_reads(tmp_path: Path) -> None:
    pytest.importorskip("polygraphy", reason="polygraphy is not installed (extra lint)")
    pytest.importorskip("onnx_graphsurgeon", reason="onnx-graphsurgeon is not installed (extra lint)")
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "unread", "y")]
    for inputs in (ends[:1], ends[:2]):
        nodes = [helper.make_node("Relu", ["x"], ["y"], name="relu")]
        graph = helper.make_graph(nodes, "g", inputs, ends[2:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.save(model, tmp_path / "a.onnx")
        network = SimpleNamespace(file=tmp_path / "a.onnx")
        if len(inputs) == 1:
            checks.lint(network)  # type: ignore[arg-type]
        else:
            with pytest.raises(CheckFailedError, match="unread"):
                checks.lint(network)  # type: ignore[arg-type]
    assert not (tmp_path / "a.lint.json").exists()
