"""The layer in which an ONNX file begins to differ: found where the bug is, silent where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tumorseg_benchmarks.parity.layer_diff import LayerDiff, measure_layer_diff
from tumorseg_benchmarks.parity.layer_match import align, snr_db
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.parity.reference import load_golden

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

Measure = Callable[..., LayerDiff]


@pytest.fixture
def measure(tiny_run: Run, tiny_bundle: Bundle, tmp_path: Path) -> Measure:
    """`measure(edit, file, precision)`: the layer_diff of a graph of the tiny bundle after `edit`."""

    def run(
        edit: Callable[[onnx.ModelProto], None] = lambda model: None,
        file: str = "model.onnx",
        precision: str = "fp32",
    ) -> LayerDiff:
        model = onnx.load(tiny_bundle.root / file)
        edit(model)
        onnx.save(model, tmp_path / file)
        golden = load_golden(tiny_bundle)[0]
        return measure_layer_diff(
            tiny_run.model(), tiny_run.contract, tmp_path / file, precision, golden.name, golden.tensor
        )

    return run


def convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Conv"]


def scale(index: int, factor: float) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        name = convolutions(model)[index].input[1]
        (tensor,) = [one for one in model.graph.initializer if one.name == name]
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array((array * factor).astype(array.dtype), name))

    return edit


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "precision", "least"), [("model.onnx", "fp32", 95), ("model.fp16.onnx", "fp16", 35)]
)
def test_right_files_do_not_diverge(measure: Measure, file: str, precision: str, least: float) -> None:
    layer_diff = measure(file=file, precision=precision)
    assert layer_diff.first is None
    assert layer_diff.unmatched == ()
    assert len(layer_diff.layers) == 32  # 20 of resnet18, 10 of the decoder, the head, and the logits
    assert min(layer.db for layer in layer_diff.layers) > least
    assert all(
        layer.weights_differ is not None and layer.weights_differ < 1e-3 for layer in layer_diff.layers[:-1]
    )
    assert layer_diff.layers[0].module == "encoder.conv1"
    assert "no layer diverges, lowest SNR" in layer_diff.line


@pytest.mark.slow
def test_a_scaled_layer_is_named(measure: Measure) -> None:
    right = measure()
    layer_diff = measure(scale(12, 1.01))
    assert layer_diff.first is not None
    assert layer_diff.first.module == right.layers[12].module
    assert layer_diff.first.db == pytest.approx(40, abs=4)  # an error of one per cent, before its bias
    assert layer_diff.first.weights_differ == pytest.approx(0.01, rel=1e-3)
    assert "its weights differ by 0.01 of the largest one" in layer_diff.line
    assert layer_diff.to_dict()["first"] == layer_diff.first.module


@pytest.mark.slow
def test_a_missing_activation_is_seen_at_the_entrance_of_the_next_layer(measure: Measure) -> None:
    right = measure()

    def edit(model: onnx.ModelProto) -> None:
        (node,) = [node for node in model.graph.node if convolutions(model)[5].output[0] in node.input]
        assert node.op_type == "Relu"
        node.op_type = "Abs"

    layer_diff = measure(edit)
    assert layer_diff.first is not None
    assert layer_diff.first.module == right.layers[6].module
    assert layer_diff.first.input_db is not None
    assert layer_diff.first.input_db < 20
    assert "look at Abs" in layer_diff.line


@pytest.mark.slow
def test_another_attribute_is_told_from_other_weights(measure: Measure) -> None:
    def edit(model: onnx.ModelProto) -> None:
        bias = convolutions(model)[3].input[2]
        (tensor,) = [one for one in model.graph.initializer if one.name == bias]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.1), bias))

    layer_diff = measure(edit)
    assert layer_diff.first is not None
    assert layer_diff.first.weights_differ is not None
    assert layer_diff.first.weights_differ < 1e-5
    assert "what enters it is right: look at its bias and attributes" in layer_diff.line


def test_nan_diverges(measure: Measure) -> None:
    layer_diff = measure(scale(5, float("nan")))
    assert layer_diff.first is not None
    assert layer_diff.first.db == -math.inf


def test_layers_are_matched_by_weights_then_by_shape_in_order() -> None:
    random = np.random.default_rng(0)
    a, b, c, d = (random.normal(size=(4, 4, 3, 3)).astype(np.float32) for _ in range(4))
    other = np.ones((2, 4, 1, 1), np.float32)
    assert align([a, b, other, c], [a, b, other, c]) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert align([a, b, c], [a, c]) == [(0, 0), (2, 1)]  # b was dropped
    assert align([a, b, c], [a, d, c]) == [(0, 0), (1, 1), (2, 2)]  # b has other weights
    assert align([a, other], [b]) == [(0, 0)]
    assert align([a, b], [None, b]) == [(0, 0), (1, 1)]  # weights that are no constants
    assert align([a], [other]) == align([], [a]) == []


def test_snr() -> None:
    values = np.array([3, -4], np.float32)
    assert snr_db(values, values * np.float32(1.1)) == pytest.approx(20, abs=1e-3)
    assert snr_db(values, values) == math.inf
    assert snr_db(values, values * np.float32(np.nan)) == -math.inf
    assert snr_db(values * 0, values) == -math.inf
