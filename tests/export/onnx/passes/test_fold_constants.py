"""What depends on no image is computed once, and the graph gives what it gave."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tumorseg_export.onnx.passes.fold_constants import FoldConstants


def positions(*, of_image: bool) -> onnx.ModelProto:
    """An image plus weights that are turned and resampled to its size, or plus itself, turned twice."""
    cubic = {"mode": "cubic", "antialias": 1, "exclude_outside": 1, "cubic_coeff_a": -0.5}
    nodes = [
        helper.make_node("Transpose", ["image" if of_image else "weights"], ["turned"], perm=[0, 1, 3, 2]),
        helper.make_node("Resize", ["turned", "", "scales"], ["resized"], **cubic),
        helper.make_node("Add", ["image", "resized"], ["logits"]),
    ]
    random = np.random.default_rng(0).standard_normal((1, 1, 6, 8), np.float32)
    scales = np.float32([1, 1, 1, 1] if of_image else [1, 1, 0.5, 0.5])
    size = [1, 1, 4, 4] if of_image else [1, 1, 4, 3]
    tensors = [numpy_helper.from_array(random, "weights"), numpy_helper.from_array(scales, "scales")]
    graph = helper.make_graph(
        nodes,
        "positions",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, size)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def test_what_depends_on_weights_alone_is_computed_once() -> None:
    before = positions(of_image=False)
    model = ir.from_proto(before)
    assert FoldConstants()(model).modified
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    assert [node.op_type for node in after.graph.node] == ["Add"]
    assert [tensor.name for tensor in after.graph.initializer] == ["resized_folded"]
    image = np.random.default_rng(1).standard_normal((1, 1, 4, 3), np.float32)
    one, other = (ReferenceEvaluator(graph).run(None, {"image": image})[0] for graph in (before, after))
    assert np.array_equal(one, other)


def test_what_depends_on_the_image_stays() -> None:
    model = ir.from_proto(positions(of_image=True))
    assert not FoldConstants()(model).modified
    assert [node.op_type for node in model.graph] == ["Transpose", "Resize", "Add"]
