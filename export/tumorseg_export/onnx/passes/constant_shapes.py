"""Constant scales and shapes in place of those that the graph computes from other tensors.

torch.onnx.export writes an upsampling to the size of another tensor as `Shape -> Concat -> Resize(sizes)`,
and views and repetitions by shapes that it reads, cuts and joins (attention, class tokens, adaptive
pooling). Height and width are fixed here, so only the batch is not known before. Such a chain costs more
than its arithmetic: ONNX Runtime's CUDA provider places it on the CPU and refuses the graph under
`session.disable_cpu_ep_fallback=1`, CUDA graphs cannot hold it, and an NPU takes it for dynamic shapes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from tumorseg_export.onnx.passes.base import constant, operator
from tumorseg_export.onnx.passes.shape_values import BATCHES, Unknown, at_batches, shape_at, sizes

SHAPE = 1  # the second input of Reshape and Expand
SCALES, SIZES = 2, 3  # a Resize's inputs


class ConstantShapes(ir.passes.InPlacePass):
    """Gives every Resize its scales, every Reshape and Expand its shape, and takes a Gather away that leaves
    everything in its place; removes what nobody reads then.

    A node stays as it is where more than the batch is open, and a Resize where `scales_between` gives none.
    What is repeated for each image of a batch (a class token) still reads the batch's size, and no other.
    Shapes must have been inferred.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Change the model itself."""
        modified = False
        rules = {"Resize": _resize, "Reshape": _reshape, "Expand": _expand, "Gather": _gather}
        for node in list(model.graph):
            if node.op_type in rules:
                modified |= rules[node.op_type](model.graph, node)
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
    if wanted is None or wanted.const_value is not None:
        return False
    found = sizes(wanted, graph)
    if found is None or 0 in found or found.count(None) + found.count(-1) > 1:
        return False
    _give_shape(graph, node, [-1 if size is None else size for size in found])  # -1: whatever is left
    return True


def _give_shape(graph: ir.Graph, node: ir.Node, shape: list[int]) -> None:
    name = f"{node.outputs[0].name}_shape"
    node.replace_input_with(SHAPE, constant(graph, name, np.array(shape, np.int64)))


def _expand(graph: ir.Graph, node: ir.Node) -> bool:
    """A size that the data has already is 1 in the shape: both are broadcast."""
    data, wanted = node.inputs
    if data is None or data.shape is None or wanted is None or wanted.const_value is not None:
        return False
    found = sizes(wanted, graph)
    if found is None or len(found) != len(data.shape):
        return False
    batch = graph.inputs[0].shape[0] if graph.inputs[0].shape else None
    pairs = list(zip(data.shape, found, strict=True))
    if not any(size is None and own != batch for own, size in pairs):
        _give_shape(graph, node, [1 if size is None else size for own, size in pairs])
        return True
    (own, size), *rest = pairs
    if (own, size) != (1, None) or any(size not in (own, 1) for own, size in rest):
        return False
    _repeat(graph, node, data, len(pairs))
    return True


def _repeat(graph: ir.Graph, node: ir.Node, data: ir.Value, rank: int) -> None:
    """(1, ...) -> (N, ...): by way of (1, ..., 1) -> (1, ..., N), whose shape is [N] and needs no joining."""
    name = node.outputs[0].name
    behind = constant(graph, f"{name}_behind", np.array([-1], np.int64))
    count = operator("Shape", [graph.inputs[0]], f"{name}_batch", start=0, end=1)
    column = operator("Unsqueeze", [data, behind], f"{name}_column")
    many = operator("Expand", [column.outputs[0], count.outputs[0]], f"{name}_many")
    turn = operator("Transpose", many.outputs, f"{name}_turned", perm=[rank, *range(1, rank), 0])
    graph.insert_before(node, [count, column, many, turn])
    last = operator("Squeeze", [turn.outputs[0], behind], f"{name}_repeated")
    last.outputs[0].shape, last.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
    graph.insert_before(node, last)
    node.outputs[0].replace_all_uses_with(last.outputs[0])


def _gather(graph: ir.Graph, node: ir.Node) -> bool:
    """A flat tensor whose elements are gathered in the order that they have: a Reshape."""
    flat, index = node.inputs
    if (
        index is None
        or index.const_value is not None
        or flat is None
        or flat.shape is None
        or len(flat.shape) != 1
    ):
        return False
    whole, found, result = flat.producer(), at_batches(index, graph), node.outputs[0]
    if whole is None or whole.op_type != "Reshape" or found is None:
        return False
    source = whole.inputs[0]
    assert source is not None
    try:
        for batch, places in zip(BATCHES, found, strict=True):
            shape = shape_at(result, graph, batch)
            in_order = np.arange(int(np.prod(shape_at(source, graph, batch)))).reshape(shape)
            if not np.array_equal(places, in_order):
                return False
    except (Unknown, ValueError):  # another number of elements
        return False
    assert result.shape is not None
    sizes_now = [size if isinstance(size, int) else -1 for size in result.shape]
    target = constant(graph, f"{result.name}_shape", np.array(sizes_now, np.int64))
    view = operator("Reshape", [source, target], f"{result.name}_view")
    view.outputs[0].shape, view.outputs[0].type = result.shape, result.type
    graph.insert_before(node, view)
    result.replace_all_uses_with(view.outputs[0])
    return True
