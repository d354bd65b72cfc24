"""From an FP32 graph to one of mixed precision: typed by node, with Casts where the types meet.

TensorRT's strongly typed networks and ONNX Runtime read the types from the file and repair nothing, so every
input of a node must have the one type that the node works in. Which inputs follow the node's type, and
which do not (the scales of a Resize are always FP32), is read from the operator's schema.

A node is named by its first output, which is unique in a graph; a node's own name need not be.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Set
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tumorseg_runtime.core.errors import CheckFailedError

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
SUFFIX: dict[int, str] = {FLOAT: "fp32", HALF: "fp16"}
SCOPES = "pkg.torch.onnx.name_scopes"  # torch's exporter leaves the modules of a node here, outermost first


class Slots(NamedTuple):
    """Positions of a node's inputs and outputs whose type is the one that the node works in."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Graph:
    """An FP32 graph with what typing needs to know of it. `model` is not changed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.opset = next(entry.version for entry in model.opset_import if entry.domain == "")
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        self.types = {
            value.name: value.type.tensor_type.elem_type
            for value in (*inferred.input, *inferred.value_info, *inferred.output)
        }
        self.nodes = {node.output[0]: node for node in model.graph.node}
        self.slots = {key: self._slots(node) for key, node in self.nodes.items()}
        self.producer = {name: key for key, node in self.nodes.items() for name in node.output}
        self.consumers: dict[str, list[str]] = {}
        for key, node in self.nodes.items():
            for name in node.input:
                self.consumers.setdefault(name, []).append(key)

    @property
    def typed(self) -> tuple[str, ...]:
        """The nodes that can work in FP16 or FP32, in the graph's order."""
        return tuple(key for key, slots in self.slots.items() if slots.inputs)

    def tensors(self, key: str) -> Iterator[str]:
        """A node's float inputs that are no weights, and its float outputs, without empty ones."""
        node, slots = self.nodes[key], self.slots[key]
        yield from (node.input[i] for i in slots.inputs if node.input[i] not in self.weights)
        yield from (node.output[i] for i in slots.outputs)

    def weights_of(self, key: str) -> Iterator[onnx.TensorProto]:
        """The weights that a node reads in its own precision."""
        node = self.nodes[key]
        yield from (
            self.weights[node.input[i]] for i in self.slots[key].inputs if node.input[i] in self.weights
        )

    def layer(self, key: str) -> str:
        """The module that a node comes from, with the operator where it is not the module's own."""
        node = self.nodes[key]
        scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), None)
        module = ast.literal_eval(scopes)[-2] if scopes else ""
        own = node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization")
        return module if module and own else f"{module or key} ({node.op_type})"

    def _slots(self, node: onnx.NodeProto) -> Slots:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise CheckFailedError(
                f"{node.op_type} {node.output[0]} holds a graph of its own, expected plain operators: leave "
                "out the target onnx-fp16"
            )
        schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
        allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}

        def type_of(formal: list[onnx.defs.OpSchema.FormalParameter], index: int) -> str:
            return formal[min(index, len(formal) - 1)].type_str  # the last one may be variadic

        inputs = tuple(
            i
            for i, name in enumerate(node.input)
            if name
            and "tensor(float16)" in allowed.get(type_of(list(schema.inputs), i), ())
            and (self.weights[name].data_type if name in self.weights else self.types[name]) == FLOAT
        )
        kinds = {type_of(list(schema.inputs), i) for i in inputs}
        outputs = tuple(
            i
            for i, name in enumerate(node.output)
            if name and self.types[name] == FLOAT and type_of(list(schema.outputs), i) in kinds
        )
        return Slots(inputs, outputs) if outputs else Slots((), ())  # a Shape or a Cast, say


def to_mixed(graph: Graph, keep: Set[str]) -> onnx.ModelProto:
    """The graph with every node in FP16 but those in `keep`; FP32 in and out.

    keep: nodes, by first output. Raises CheckFailedError where a weight that is to be halved is too large.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.node[:], model.graph.value_info[:], model.graph.initializer[:]
    types = {value.name: graph.types[value.name] for value in model.graph.input}
    results = {value.name for value in model.graph.output}
    written: set[str] = set()

    def as_type(name: str, wanted: int) -> str:
        """The name under which a float tensor is to be had in a type; makes it where it is new."""
        weight = graph.weights.get(name)
        there = FLOAT if weight is not None else types[name]
        cast = name if there == wanted else f"{name}_{SUFFIX[wanted]}"
        if cast in written or (weight is None and there == wanted):
            return cast
        written.add(cast)
        if weight is None:
            model.graph.node.append(onnx.helper.make_node("Cast", [name], [cast], f"cast_{cast}", to=wanted))
        else:
            tensor = weight if wanted == FLOAT else _halved(weight)
            model.graph.initializer.add().CopyFrom(tensor)
            model.graph.initializer[-1].name = cast
        return cast

    for key, node in graph.nodes.items():
        slots = graph.slots[key]
        precision = HALF if slots.inputs and key not in keep else FLOAT
        mixed = onnx.NodeProto()
        mixed.CopyFrom(node)
        for i, name in enumerate(node.input):
            is_float = (
                bool(name)
                and (graph.weights[name].data_type if name in graph.weights else graph.types[name]) == FLOAT
            )
            if is_float:
                mixed.input[i] = as_type(name, precision if i in slots.inputs else FLOAT)
            elif name in graph.weights and name not in written:
                written.add(name)
                model.graph.initializer.add().CopyFrom(graph.weights[name])
        casts = []
        for i, name in enumerate(node.output):
            types[name] = precision if i in slots.outputs else graph.types[name]
            if name in results and types[name] == HALF:
                mixed.output[i] = f"{name}_{SUFFIX[HALF]}"
                casts.append(
                    onnx.helper.make_node("Cast", [mixed.output[i]], [name], f"cast_{name}", to=FLOAT)
                )
                types[name] = FLOAT  # a later reader takes the result
        model.graph.node.extend([mixed, *casts])
    return model


def _halved(weight: onnx.TensorProto) -> onnx.TensorProto:
    values = numpy_helper.to_array(weight)
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise CheckFailedError(
            f"weight {weight.name} reaches {np.abs(values).max():.4g}, FP16 ends at 65504: keep it in FP32"
        )
    return numpy_helper.from_array(half, weight.name)
