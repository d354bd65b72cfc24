"""What a graph computes from weights alone, computed once.

torch.onnx.export leaves chains of which every input is a weight, such as the resampling of a vision
transformer's embeddings of positions to the grid of the image. At run time that is work for nothing, and not
the same everywhere: OpenVINO does not heed the antialiasing of such a Resize, and DPT's logits were off by a
seventh of their standard deviation.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import RemoveUnusedNodesPass

from tumorseg_export.onnx.passes.base import constant

SUBGRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


class FoldConstants(ir.passes.InPlacePass):
    """Gives every node of constant inputs and one output its value, by ONNX's reference evaluator."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Change the model itself."""
        constants = [node for node in model.graph if _fold(model, node)]  # in the order in which they compute
        if constants:
            RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, bool(constants))


def _fold(model: ir.Model, node: ir.Node) -> bool:
    feeds = {}
    for value in node.inputs:
        if value is not None:
            if value.const_value is None or value.is_graph_input():
                return False
            feeds[str(value.name)] = value.const_value.numpy()
    nested = any(attribute.type in SUBGRAPHS for attribute in node.attributes.values())
    if not feeds or node.domain or nested or len(node.outputs) != 1:
        return False
    result = node.outputs[0]
    folded = constant(model.graph, f"{result.name}_folded", _computed(model, node, feeds))
    ir.convenience.replace_all_uses_with(result, folded)
    return True


def _computed(model: ir.Model, node: ir.Node, feeds: dict[str, np.ndarray]) -> np.ndarray:
    inputs = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(values.dtype), values.shape
        )
        for name, values in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=node.outputs[0].name)]
    graph = onnx.helper.make_graph([ir.to_proto(node)], "one", inputs, outputs)
    opsets = [onnx.helper.make_opsetid("", model.opset_imports[""])]
    (value,) = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=opsets)).run(None, feeds)
    return np.asarray(value)
