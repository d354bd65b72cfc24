"""Stages of dilated convolutions as dense ones on sub-images.

A convolution of dilation d never mixes pixels whose coordinates differ modulo d. So an image is taken apart
into d * d sub-images that become images of the batch (space to batch); there the convolution is dense with
padding 1, and what works pixel by pixel goes on as before. At the stage's end the pixels are put back. It
is the same arithmetic on the same numbers; backends compute dense convolutions faster (Winograd).

Both moves are a SpaceToDepth or DepthToSpace and a Reshape whose batch is open:
(N, C, H, W) -> (N, d*d*C, H/d, W/d) -> (N*d*d, C, H/d, W/d).
"""

from __future__ import annotations

from collections.abc import Callable, Set

import numpy as np
import onnx
from onnx import helper

from tumorseg_export.onnx.passes.base import (
    PassResult,
    View,
    constant,
    geometry,
    is_uniform,
    rebuilt,
    set_attributes,
)

FEWEST = 2  # dilated convolutions of a stage; for a single one the two moves were not seen to pay
POINTWISE = {
    "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu", "Add", "Sub",
    "Mul", "Div", "Cast",
}  # fmt: skip


def fold_dilation(model: onnx.ModelProto) -> PassResult:
    """Fold every stage of two or more convolutions of one dilation that divides their height and width.

    `modified` counts the convolutions that became dense. Batch and interface stay as they are.
    """
    folded = 0
    for dilation in _dilations(model):
        view = View(model)
        region, dilated = _region(view, dilation)
        if dilated >= FEWEST:
            model = _fold(model, view, region, dilation)
            folded += dilated
    return PassResult(model, folded)


def _dilations(model: onnx.ModelProto) -> list[int]:
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    found = set()
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] in weights:
            form = geometry(node, weights[node.input[1]])
            if form is not None and max(form.kernel) > 1:
                found |= set(form.dilation)
    return sorted(found - {1})


def _region(view: View, dilation: int) -> tuple[set[str], int]:
    """First outputs of the nodes that work on sub-images, and how many of them are dilated convolutions.

    They are the dilated convolutions, what lies between two of them, and what joins without another move.
    """
    nodes = list(view.graph.node)
    fits = {node.output[0] for node in nodes if _commutes(view, node, dilation)}
    dilated = {node.output[0] for node in nodes if node.output[0] in fits and _is_dilated(view, node)}

    def spread(order: list[onnx.NodeProto], near: Callable[[onnx.NodeProto], list[str]]) -> set[str]:
        reached = set(dilated)
        for node in order:
            if node.output[0] in fits and any(name in reached for name in near(node)):
                reached.add(node.output[0])
        return reached

    after = spread(nodes, lambda node: list(node.input))
    before = spread(nodes[::-1], lambda node: [one.output[0] for one in view.readers.get(node.output[0], [])])
    region = after & before
    for node in nodes:  # behind: all that it reads is in sub-images already, and nobody else outside reads it
        if node.output[0] in fits and node.output[0] not in region:
            sources = _activations(view, node)
            joined = {reader.output[0] for name in sources for reader in view.readers[name]}
            results = any(name in view.results for name in sources)
            if (
                all(name in region for name in sources)
                and joined <= region | {node.output[0]}
                and not results
            ):
                region.add(node.output[0])
    for node in nodes[::-1]:  # beside: it reads what must be moved anyway, and only the region reads it
        if node.output[0] in fits and node.output[0] not in region and node.output[0] not in view.results:
            readers = view.readers.get(node.output[0], [])
            moved = _moved(view, region)
            if (
                readers
                and all(reader.output[0] in region for reader in readers)
                and all(name in moved for name in _activations(view, node))
            ):
                region.add(node.output[0])
    return region, len(dilated)


def _moved(view: View, region: Set[str]) -> set[str]:
    """Tensors from outside that the region reads."""
    return {
        name
        for node in view.graph.node
        if node.output[0] in region
        for name in _activations(view, node)
        if name not in region
    }


def _activations(view: View, node: onnx.NodeProto) -> list[str]:
    return [name for name in node.input if name and name not in view.weights]


def _commutes(view: View, node: onnx.NodeProto, dilation: int) -> bool:
    """True where the node gives the same pixels when it works on the sub-images."""
    size = view.size(node.output[0])
    sources = _activations(view, node)
    if size is None or not sources or size[0] % dilation or size[1] % dilation:
        return False
    if any(view.size(name) != size for name in sources):
        return False
    if node.op_type in POINTWISE:
        return all(is_uniform(view.weights[name]) for name in node.input if name in view.weights)
    if node.op_type != "Conv" or node.input[1] not in view.weights:
        return False
    form = geometry(node, view.weights[node.input[1]])
    if form is None or form.stride != (1, 1):
        return False
    return all(
        before == after == step * (kernel // 2) and kernel % 2 == 1 and (kernel == 1 or step == dilation)
        for kernel, step, before, after in zip(
            form.kernel, form.dilation, form.pads[:2], form.pads[2:], strict=True
        )
    )


def _is_dilated(view: View, node: onnx.NodeProto) -> bool:
    return node.op_type == "Conv" and max(view.weights[node.input[1]].dims[2:]) > 1


def _fold(model: onnx.ModelProto, view: View, region: Set[str], dilation: int) -> onnx.ModelProto:
    nodes: list[onnx.NodeProto] = []
    shapes: list[onnx.TensorProto] = []
    moved: set[str] = set()

    def inside(name: str) -> str:
        return f"{name}_parts{dilation}"

    def reshape(context: str, target: str, channels: int, height: int, width: int) -> onnx.NodeProto:
        shapes.append(constant(f"{target}_shape", np.array([-1, channels, height, width], np.int64)))
        return helper.make_node("Reshape", [context, f"{target}_shape"], [target], f"node_{target}")

    def take_apart(name: str) -> None:
        _, channels, height, width = view.shapes[name]
        deep = f"{inside(name)}_deep"
        nodes.append(
            helper.make_node("SpaceToDepth", [name], [deep], f"node_{deep}", blocksize=dilation)
        )  # (N, d*d*C, H/d, W/d)
        nodes.append(reshape(deep, inside(name), channels, height // dilation, width // dilation))
        moved.add(name)

    def put_back(name: str) -> None:
        _, channels, height, width = view.shapes[name]
        deep = f"{inside(name)}_whole"
        nodes.append(
            reshape(inside(name), deep, dilation**2 * channels, height // dilation, width // dilation)
        )
        nodes.append(
            helper.make_node(
                "DepthToSpace", [deep], [name], f"node_{deep}_back", blocksize=dilation, mode="DCR"
            )
        )

    for node in model.graph.node:
        if node.output[0] not in region:
            nodes.append(node)
            continue
        for name in _activations(view, node):
            if name not in region and name not in moved:
                take_apart(name)
        folded = onnx.NodeProto()
        folded.CopyFrom(node)
        for i, name in enumerate(node.input):
            if name and name not in view.weights:
                folded.input[i] = inside(name)
        folded.output[0] = inside(node.output[0])
        if node.op_type == "Conv":
            height, width = (size // 2 for size in view.weights[node.input[1]].dims[2:])
            set_attributes(folded, dilations=[1, 1], pads=[height, width, height, width])
        nodes.append(folded)
        outside = [one for one in view.readers.get(node.output[0], []) if one.output[0] not in region]
        if outside or node.output[0] in view.results:
            put_back(node.output[0])
    return rebuilt(model, nodes, shapes)
