"""What a pass is, and the view of a graph that the passes share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import onnx
from onnx import numpy_helper


@dataclasses.dataclass(frozen=True)
class PassResult:
    """The model after a pass, and how many places of it were changed; with 0 it is the model as it was."""

    model: onnx.ModelProto
    modified: int


class Pass(Protocol):
    """A pass: the model that it is given stays as it is."""

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Apply the pass everywhere it fits."""


class View:
    """A graph with shapes, weights, producers and readers by tensor name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.producer = {name: node for node in model.graph.node for name in node.output if name}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.results = {value.name for value in model.graph.output}
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        self.shapes = {
            value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)  # 0: left open
            for value in (*inferred.input, *inferred.value_info, *inferred.output)
        }

    def size(self, name: str) -> tuple[int, int] | None:
        """Height and width of an activation (N, C, H, W), None where it has another form or they are open."""
        shape = self.shapes.get(name, ())
        return (shape[2], shape[3]) if len(shape) == 4 and shape[2] and shape[3] else None


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    return {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}


def set_attributes(node: onnx.NodeProto, **values: Any) -> None:
    """Replace attributes of a node."""
    kept = [one for one in node.attribute if one.name not in values]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in values.items())


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A two-dimensional convolution's (height, width) pairs; pads are (top, left, bottom, right)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[int, int, int, int]
    group: int


def geometry(node: onnx.NodeProto, weight: onnx.TensorProto) -> Geometry | None:
    """Of a Conv with its weight; None where it is not two-dimensional or pads by itself."""
    given = attributes(node)
    if len(weight.dims) != 4 or given.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    return Geometry(
        (weight.dims[2], weight.dims[3]),
        tuple(given.get("strides", (1, 1))),
        tuple(given.get("dilations", (1, 1))),
        tuple(given.get("pads", (0, 0, 0, 0))),
        given.get("group", 1),
    )


def is_uniform(tensor: onnx.TensorProto) -> bool:
    """True for a weight that is the same at every pixel when it meets an activation (N, C, H, W)."""
    return all(size == 1 for size in tensor.dims[-2:])


def rebuilt(
    model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], weights: Sequence[onnx.TensorProto] = ()
) -> onnx.ModelProto:
    """The model with other nodes, with the weights that they read of the old and the new ones.

    Declared shapes of tensors in between are dropped: they may be wrong now.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:], result.graph.value_info[:]
    result.graph.node.extend(nodes)
    read = {name for node in result.graph.node for name in node.input}
    del result.graph.initializer[:]
    result.graph.initializer.extend(
        tensor for tensor in (*model.graph.initializer, *weights) if tensor.name in read
    )
    return result


def constant(name: str, values: Any) -> onnx.TensorProto:
    """A weight of these values, in their own type."""
    return numpy_helper.from_array(values, name)


def elements(tensor: onnx.TensorProto) -> int:
    """How many values a weight holds."""
    return math.prod(tensor.dims)
