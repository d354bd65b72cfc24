"""Partial sums and weights have the headroom that docs/fp16.md promises, in every operator that sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper, numpy_helper

from tumorseg_export.precision.fp16_graph import Graph
from tumorseg_export.precision.fp16_ranges import HEADROOM, LARGEST, NORMS, SUMS, Ranges, measure
from tumorseg_export.precision.trial import Trials
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.parity.reference import Golden

SUM = 39_740.0  # fits into FP16, but not with a headroom of 2
Weights = list[npt.NDArray[Any]]
Case = tuple[str, Weights, dict[str, Any]]
# Each adds up `SUM` of an image (1, 2, 2, 2) of ones, and gives something much smaller.
LINEAR = [np.full((8, 1), SUM / 8) * np.array([1, -1] * 4)[:, None]]
CASES: dict[str, Case] = {
    "convolution": ("Conv", [np.array([SUM / 2, -SUM / 2]).reshape(1, 2, 1, 1)], {}),
    "transposed": ("ConvTranspose", [np.array([SUM / 2, -SUM / 2]).reshape(2, 1, 1, 1)], {}),
    "Gemm": ("Gemm", LINEAR, {}),
    "Gemm, transposed": ("Gemm", [LINEAR[0].T.copy()], {"transB": 1}),
    "Gemm, scaled": ("Gemm", [LINEAR[0] / 2, np.array([-SUM / 4])], {"alpha": -1.0, "beta": 2.0}),
    "MatMul": ("MatMul", LINEAR, {}),
    "batch": ("BatchNormalization", [np.full(2, SUM / 2), np.zeros(2), np.ones(2), np.ones(2)], {}),
}
# Each adds up `SUM` of an image of SUM / 4, as a sum and not as what it gives.
SPREAD: dict[str, Case] = {
    "pooling": ("AveragePool", [], {"kernel_shape": [2, 2]}),
    "pooling of the whole": ("GlobalAveragePool", [], {}),
    "mean": ("ReduceMean", [np.array([2, 3], np.int64)], {}),
}


def ranges_of(case: Case, value: float, folder: Path) -> tuple[Graph, Ranges]:
    """What is measured of one operator on an image of this one value."""
    operator, weights, attributes = case
    flat = operator in ("Gemm", "MatMul")
    names = [f"weight{number}" for number in range(len(weights))]
    nodes = [helper.make_node("Flatten", ["image"], ["rows"], axis=1)] if flat else []
    nodes.append(helper.make_node(operator, ["rows" if flat else "image", *names], ["result"], **attributes))
    tensors = [
        numpy_helper.from_array(one if one.dtype == np.int64 else one.astype(np.float32), name)
        for name, one in zip(names, weights, strict=True)
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("image", [1, 2, 2, 2]), ("result", None))
    ]
    graph = helper.make_graph(nodes, "one", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    image = Golden(
        "one", np.zeros((2, 2), np.uint8), np.full((2, 2, 2), value, np.float32), np.ones((1, 2, 2), "f4")
    )
    measured = Graph(model)
    found, _ = measure(measured, (image,), Trials(folder, Contract(height=32, width=32), (image,), 1.0))
    return measured, found


@pytest.mark.parametrize(("cases", "value"), [(CASES, 1.0), (SPREAD, SUM / 4)])
def test_partial_sum_has_headroom(cases: dict[str, Case], value: float, tmp_path: Path) -> None:
    for name, case in cases.items():
        graph, found = ranges_of(case, value, tmp_path)
        assert found.sums["result"].value == pytest.approx(SUM, rel=1e-5), name
        assert found.values["result"].value * HEADROOM <= LARGEST, name
        assert found.weights["result"].value * HEADROOM <= LARGEST, name
        assert found.too_large(graph)["result"].value == pytest.approx(SUM, rel=1e-5), name
        smaller, fits = ranges_of(case, value / 2, tmp_path)
        assert not fits.too_large(smaller), name


@pytest.mark.parametrize(
    ("case", "numbers"),
    [
        (("InstanceNormalization", [np.ones(2), np.zeros(2)], {}), 4),
        (("GroupNormalization", [np.ones(2), np.zeros(2)], {"num_groups": 1}), 8),
        (("LayerNormalization", [np.ones((2, 2)), np.zeros((2, 2))], {"axis": 2}), 4),
        (("LayerNormalization", [np.ones(2), np.zeros(2)], {}), 2),
    ],
)
def test_normalisation_adds_up_squares(case: Case, numbers: int, tmp_path: Path) -> None:
    value = float(np.sqrt(SUM / numbers))
    graph, found = ranges_of(case, value, tmp_path)
    assert found.sums["result"].value == pytest.approx(SUM, rel=1e-5)
    assert set(found.too_large(graph)) == {"result"}
    _, small = ranges_of(case, 0.5, tmp_path)
    assert small.sums["result"].value == pytest.approx(0.5 * numbers)  # the sum of values is larger then


def test_weight_has_headroom(tmp_path: Path) -> None:
    graph, found = ranges_of(("Conv", [np.full((1, 2, 1, 1), SUM)], {}), 1e-3, tmp_path)
    assert found.too_large(graph)["result"].image == "weights"


def test_every_operator_that_sums_is_tried() -> None:
    tried = {case[0] for case in (*CASES.values(), *SPREAD.values())}
    assert tried <= set(SUMS)
    assert {"InstanceNormalization", "GroupNormalization", "LayerNormalization"} <= set(NORMS)
