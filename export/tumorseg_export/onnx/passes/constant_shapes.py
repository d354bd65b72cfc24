"""Constant scales and shapes in place of those that the graph computes from other tensors.

torch.onnx.export writes an upsampling to the size of another tensor as `Shape -> Concat -> Resize(sizes)`,
and a view like another tensor as `Shape -> Reshape`. Height and width are fixed here, so only the batch is
not known before. Such a chain costs more than its arithmetic: ONNX Runtime's CUDA provider places it on the
CPU and refuses the graph under `session.disable_cpu_ep_fallback=1`, CUDA graphs cannot hold it, and an NPU
takes it for dynamic shapes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from tumorseg_export.onnx.passes.base import constant

SHAPE = 1  # a Reshape's second input
SCALES, SIZES = 2, 3  # a Resize's inputs


class ConstantShapes(ir.passes.InPlacePass):
    """Gives every Resize its scales and every Reshape to another tensor's shape that shape; removes the rest.

    A node stays as it is where more than the batch is open, and a Resize where `scales_between` gives none.
    Shapes must have been inferred.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Change the model itself."""
        modified = False
        for node in model.graph:
            if node.op_type == "Resize":
                modified |= _resize(model.graph, node)
            elif node.op_type == "Reshape":
                modified |= _reshape(model.graph, node)
        if modified:
            RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified)


def _resize(graph: ir.Graph, node: ir.Node) -> bool:
    if len(node.inputs) <= SIZES or "axes" in node.attributes:
        return False
    image = node.inputs[0]
    scales = None if image is None else scales_between(image.shape, node.outputs[0].shape)
    if scales is None:
        return False
    node.replace_input_with(SCALES, constant(graph, f"{node.outputs[0].name}_scales", scales))
    node.resize_inputs(SIZES)
    return True


def scales_between(image: ir.Shape | None, result: ir.Shape | None) -> npt.NDArray[np.float32] | None:
    """The (4,) factors by which a Resize turns (N, C, h, w) into (N, C, H, W); None where that is not exact.

    It is exact where `floor(h * scale)`, the operator's rule for the size, is H for the float32 scale,
    whatever the precision of the product. The scale is the quotient that a backend derives from sizes itself,
    so that it samples at the same places, bit for bit.
    """
    if image is None or result is None or len(image) != 4 or image[:2] != result[:2]:
        return None
    before, after = image[2:], result[2:]
    if not all(isinstance(size, int) for size in (*before, *after)):
        return None
    small, large = np.array(before, np.float32), np.array(after, np.float32)
    scales = large / small
    if not np.array_equal(np.floor(small.astype(np.float64) * scales), large):
        return None
    return np.concatenate([np.ones(2, np.float32), scales])


def _reshape(graph: ir.Graph, node: ir.Node) -> bool:
    wanted = node.inputs[SHAPE]
    measure = None if wanted is None else wanted.producer()
    if measure is None or measure.op_type != "Shape":
        return False
    start: int = measure.attributes.get_int("start", 0)
    like = measure.inputs[0]
    if start or "end" in measure.attributes or like is None or like.shape is None:
        return False
    sizes = [size if isinstance(size, int) else -1 for size in like.shape]  # -1: whatever is left
    if sizes.count(-1) > 1 or 0 in sizes:
        return False
    name = f"{node.outputs[0].name}_shape"
    node.replace_input_with(SHAPE, constant(graph, name, np.array(sizes, np.int64)))
    return True
