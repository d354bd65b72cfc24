"""What a pass is, and what the passes share beside onnx_ir's graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass


@dataclasses.dataclass(frozen=True)
class PassResult:
    """The model after a pass, and how many places of it were changed; with 0 it is the model as it was."""

    model: onnx.ModelProto
    modified: int


class Pass(Protocol):
    """A pass: the model that it is given stays as it is."""

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Apply the pass everywhere it fits."""


def read(model: onnx.ModelProto) -> ir.Model:
    """The model as a graph of its own to change, with every shape that can be inferred."""
    return ir.from_proto(onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True))


def written(model: ir.Model) -> onnx.ModelProto:
    """The model after a pass, without what nobody reads and without declared shapes in between."""
    RemoveUnusedNodesPass()(model)
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    return proto


def size(value: ir.Value) -> tuple[int, int] | None:
    """Height and width of an activation (N, C, H, W), None where it has another form or they are open."""
    if value.shape is None or len(value.shape) != 4:
        return None
    height, width = value.shape[2:]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def activations(node: ir.Node) -> list[ir.Value]:
    """A node's inputs that are no weights."""
    return [value for value in node.inputs if value is not None and not value.is_initializer()]


def weight(node: ir.Node, index: int = 1) -> npt.NDArray[Any] | None:
    """The weight that a node takes as an input; None where that is no weight."""
    value = node.inputs[index]
    return None if value is None or value.const_value is None else value.const_value.numpy()


def constant(graph: ir.Graph, name: str, values: npt.NDArray[Any]) -> ir.Value:
    """A new weight of these values, in their own type."""
    value = ir.val(name, const_value=ir.tensor(values, name=name))
    graph.register_initializer(value)
    return value


def operator(kind: str, inputs: Sequence[ir.Value | None], output: str, **attributes: Any) -> ir.Node:
    """A new node of one output, named for it; the graph does not have it yet."""
    return ir.node(kind, inputs, attributes, outputs=[ir.val(output)], name=f"node_{output}")


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A two-dimensional convolution's (height, width) pairs; pads are (top, left, bottom, right)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[int, int, int, int]
    group: int


def geometry(node: ir.Node) -> Geometry | None:
    """Of a Conv with a weight; None for another node, one that is not two-dimensional or pads by itself."""
    kernel = weight(node) if node.op_type == "Conv" else None
    given = node.attributes
    if kernel is None or kernel.ndim != 4 or given.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    return Geometry(
        (kernel.shape[2], kernel.shape[3]),
        tuple(given.get_ints("strides", (1, 1))),  # type: ignore[arg-type]
        tuple(given.get_ints("dilations", (1, 1))),  # type: ignore[arg-type]
        tuple(given.get_ints("pads", (0, 0, 0, 0))),  # type: ignore[arg-type]
        given.get_int("group", 1),
    )
