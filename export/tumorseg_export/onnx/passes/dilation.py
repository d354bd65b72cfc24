"""Stages of dilated convolutions as dense ones on sub-images.

A convolution of dilation d never mixes pixels whose coordinates differ modulo d. So an image is taken apart
into d * d sub-images that become images of the batch (space to batch); there the convolution is dense with
padding 1, and what works pixel by pixel goes on as before. At the stage's end the pixels are put back. It
is the same arithmetic on the same numbers; backends compute dense convolutions faster (Winograd).

Both moves are a SpaceToDepth or DepthToSpace and a Reshape whose batch is open:
(N, C, H, W) -> (N, d*d*C, H/d, W/d) -> (N*d*d, C, H/d, W/d).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

import numpy as np
import onnx
import onnx_ir as ir

from tumorseg_export.onnx.passes.base import (
    PassResult,
    activations,
    constant,
    geometry,
    operator,
    read,
    size,
    written,
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
    for dilation in _dilations(read(model)):
        changed = read(model)
        region, dilated = _region(changed.graph, dilation)
        if dilated >= FEWEST:
            _fold(changed.graph, region, dilation)
            model = written(changed)
            folded += dilated
    return PassResult(model, folded)


def _dilations(model: ir.Model) -> list[int]:
    forms = [geometry(node) for node in model.graph]
    found = {step for form in forms if form is not None and max(form.kernel) > 1 for step in form.dilation}
    return sorted(found - {1})


def _region(graph: ir.Graph, dilation: int) -> tuple[set[ir.Node], int]:
    """The nodes that work on sub-images, and how many of them are dilated convolutions.

    They are the dilated convolutions, what lies between two of them, and what joins without another move.
    """
    nodes = [node for node in graph if _commutes(node, dilation)]
    dilated = {node for node in nodes if _is_dilated(node)}

    def spread(order: list[ir.Node], near: Callable[[ir.Node], Sequence[ir.Node]]) -> set[ir.Node]:
        reached = set(dilated)
        for node in order:
            if any(other in reached for other in near(node)):
                reached.add(node)
        return reached

    region = spread(nodes, ir.Node.predecessors) & spread(nodes[::-1], ir.Node.successors)
    for node in nodes:  # behind: all that it reads is in sub-images already, and nobody else outside reads it
        sources = activations(node)
        if all(value.producer() in region and not value.is_graph_output() for value in sources) and {
            reader for value in sources for reader in value.consumers()
        } <= region | {node}:
            region.add(node)
    for node in nodes[::-1]:  # beside: it reads what must be moved anyway, and only the region reads it
        readers = node.successors()
        if (
            readers
            and region.issuperset(readers)
            and not node.outputs[0].is_graph_output()
            and _moved(region).issuperset(activations(node))
        ):
            region.add(node)
    return region, len(dilated)


def _moved(region: Set[ir.Node]) -> set[ir.Value]:
    """Values from outside that the region reads."""
    return {value for node in region for value in activations(node) if value.producer() not in region}


def _commutes(node: ir.Node, dilation: int) -> bool:
    """True where the node gives the same pixels when it works on the sub-images."""
    area = size(node.outputs[0])
    sources = activations(node)
    if area is None or not sources or area[0] % dilation or area[1] % dilation:
        return False
    if any(size(value) != area for value in sources):
        return False
    if node.op_type in POINTWISE:
        weights = [value.const_value for value in node.inputs if value is not None and value not in sources]
        return all(weight is not None and _is_uniform(weight) for weight in weights)
    form = geometry(node)
    if form is None or form.stride != (1, 1):
        return False
    return all(
        before == after == step * (kernel // 2) and kernel % 2 == 1 and (kernel == 1 or step == dilation)
        for kernel, step, before, after in zip(
            form.kernel, form.dilation, form.pads[:2], form.pads[2:], strict=True
        )
    )


def _is_uniform(weight: ir.TensorProtocol) -> bool:
    """True for a weight that is the same at every pixel when it meets an activation (N, C, H, W)."""
    return all(length == 1 for length in weight.shape[-2:])


def _is_dilated(node: ir.Node) -> bool:
    form = geometry(node)
    return form is not None and max(form.kernel) > 1


def _fold(graph: ir.Graph, region: Set[ir.Node], dilation: int) -> None:
    inside: dict[ir.Value, ir.Value] = {}  # values from outside, taken apart

    def reshape(value: ir.Value, output: str, like: ir.Shape, deep: bool) -> ir.Node:
        """To or from the form before or after SpaceToDepth, for an image of shape `like`."""
        _, channels, height, width = (length if isinstance(length, int) else -1 for length in like)
        sizes = [-1, channels * dilation**2 if deep else channels, height // dilation, width // dilation]
        return operator(
            "Reshape", [value, constant(graph, f"{output}_shape", np.array(sizes, np.int64))], output
        )

    def take_apart(value: ir.Value, before: ir.Node) -> ir.Value:
        assert value.shape is not None
        name = f"{value.name}_parts{dilation}"
        deep = operator("SpaceToDepth", [value], f"{name}_deep", blocksize=dilation)  # (N, d*d*C, H/d, W/d)
        parts = reshape(deep.outputs[0], name, value.shape, deep=False)
        graph.insert_before(before, [deep, parts])
        return parts.outputs[0]

    def put_back(value: ir.Value, readers: Sequence[ir.Node]) -> None:
        assert value.shape is not None
        name, producer = value.name, value.producer()
        assert producer is not None
        value.name = f"{name}_parts{dilation}"
        deep = reshape(value, f"{value.name}_whole", value.shape, deep=True)
        whole = operator("DepthToSpace", deep.outputs, str(name), blocksize=dilation, mode="DCR")
        whole.name = f"node_{value.name}_whole_back"
        graph.insert_after(producer, [deep, whole])
        (back,) = whole.outputs
        back.type, back.shape = value.type, value.shape
        for reader in readers:
            for index, read_value in enumerate(reader.inputs):
                if read_value is value:
                    reader.replace_input_with(index, back)
        for index, result in enumerate(graph.outputs):
            if result is value:
                graph.outputs[index] = back

    for node in [node for node in graph if node in region]:
        for index, value in enumerate(node.inputs):
            if value is None or value.is_initializer() or value.producer() in region:
                continue
            if value not in inside:
                inside[value] = take_apart(value, node)
            node.replace_input_with(index, inside[value])
        if node.op_type == "Conv":
            form = geometry(node)
            assert form is not None
            pads = [length // 2 for length in form.kernel] * 2
            node.attributes.update(
                {"dilations": ir.AttrInt64s("dilations", [1, 1]), "pads": ir.AttrInt64s("pads", pads)}
            )
        output = node.outputs[0]
        outside = [reader for reader in output.consumers() if reader not in region]
        if outside or output.is_graph_output():
            put_back(output, outside)
