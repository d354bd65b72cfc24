"""How much a graph computes, counted from its ONNX form."""

from __future__ import annotations

import math

import onnx

from tumorseg_export.onnx.export import BATCH
from tumorseg_runtime.core.errors import CheckFailedError

_LARGE = 1024  # elements; a weight beyond it does not decide any shape


def count_flops(model: onnx.ModelProto) -> int:
    """Floating-point operations for one image: two (multiply, add) per weight and output pixel.

    Raises what `multiplications` raises.
    """
    return 2 * sum(multiplications(model).values())


def multiplications(model: onnx.ModelProto) -> dict[str, int]:
    """Multiplications of each node for one image, by the node's first output.

    Counted are Conv, ConvTranspose, Gemm and MatMul, biases apart; the rest of such networks is below 1 %.
    Raises CheckFailedError where shape inference leaves a shape open.
    """
    graph = _with_shapes_of_one_image(model)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    return {node.output[0]: _multiplications(node, shapes) for node in graph.node}


def _multiplications(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type == "Conv":
        output, weight = _shape(node.output[0], shapes), _shape(node.input[1], shapes)
        return math.prod(output) * math.prod(weight[1:])  # weight (out, in / groups, kh, kw)
    if node.op_type == "ConvTranspose":
        image, weight = _shape(node.input[0], shapes), _shape(node.input[1], shapes)
        return math.prod(image) * math.prod(weight[1:])  # weight (in, out / groups, kh, kw)
    if node.op_type in ("Gemm", "MatMul"):
        output, first = _shape(node.output[0], shapes), _shape(node.input[0], shapes)
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return math.prod(output) * first[-2 if transposed else -1]
    return 0


def _shape(name: str, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    shape = shapes.get(name, ())
    if not shape or 0 in shape:
        raise CheckFailedError(
            f"shape of '{name}' is {shape}, expected it whole, or the graph cannot be counted: "
            "report the architecture"
        )
    return shape


def _with_shapes_of_one_image(model: onnx.ModelProto) -> onnx.GraphProto:
    """The graph without the content of its weights, every shape inferred for a batch of 1."""
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = light.graph
    graph.name = "counted"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _LARGE:
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == BATCH:
                dim.dim_value = 1
    return onnx.shape_inference.infer_shapes(light, strict_mode=True, data_prop=True).graph
