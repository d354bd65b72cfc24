"""From an FP32 graph to one with QuantizeLinear and DequantizeLinear around what computes in INT8.

Weights are S8, symmetric, one scale per output channel (R. Krishnamoorthi, arXiv 1806.08342, 3); biases
S32 with the product of both scales; activations U8 with one scale per tensor. ONNX Runtime fuses a
convolution and the ReLU behind it only where the zero point is the type's smallest number, so that the cut
at 0 is that of the type: U8 with zero point 0 for what is never negative. Symmetric S8 activations, which
TensorRT wants, are read by ONNX Runtime, too, and slower than FP32 there (docs/int8.md).

A tensor that an INT8 node gives is rounded for all of its readers, or the node could not be fused; one that a
float node gives only for its INT8 readers. What moves values (Concat, MaxPool, nearest Resize) works on what
comes rounded. What leads to the graph's result stays in floating point.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Set

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from tumorseg_export.precision.fp16_graph import Graph

FloatArray = npt.NDArray[np.float64]
LEVELS, WEIGHT_LEVELS = 255, 127
LARGEST_BIAS = 2.0**30  # of S32, with room for the sum that it is added to
ACTIVATIONS = ("Relu", "Clip")


@dataclasses.dataclass(frozen=True)
class Range:
    """What a tensor's values are cut to: low <= 0 <= high."""

    low: float
    high: float

    @property
    def scale(self) -> np.float32:
        """Of one step."""
        return np.float32(max(self.high - self.low, 1e-8) / LEVELS)

    @property
    def zero(self) -> int:
        """The number, 0..255, that stands for 0."""
        return round(-self.low / float(self.scale))


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """Of each activation, by its name: what it is cut to, and the mean of each channel float64 (C,)."""

    ranges: Mapping[str, Range]
    means: Mapping[str, FloatArray]


def integer_nodes(graph: Graph, keep: Set[str] = frozenset()) -> tuple[str, ...]:
    """The nodes that compute in INT8 where those of `keep` do not, by their keys, in the graph's order."""
    results = {value.name for value in graph.model.graph.output}
    found: set[str] = set()
    for key, node in graph.nodes.items():
        given = [graph.producer[name] in found for name in node.input if name in graph.producer]
        fits = {
            "Conv": len(node.input) > 1 and all(name in graph.weights for name in node.input[1:]),
            "Add": len(given) == 2 and any(given),
            "Concat": any(given),
            "MaxPool": all(given) and len(node.output) == 1,
            "Resize": all(given) and _mode(node) == "nearest",
            **dict.fromkeys(ACTIVATIONS, all(given)),
        }.get(node.op_type, False)
        if fits and key not in keep and not _gives_result(graph, key, results):
            found.add(key)
    return tuple(key for key in graph.nodes if key in found)


def activations_of(graph: Graph) -> tuple[str, ...]:
    """Every tensor that could be rounded, in the graph's order."""
    nodes = integer_nodes(graph)
    read = (name for key in nodes for name in graph.nodes[key].input[: _read(graph, key)] if name)
    names = {*read, *nodes}
    order = [*(value.name for value in graph.model.graph.input), *graph.nodes]
    return tuple(name for name in order if name in names)


def to_int8(graph: Graph, keep: Set[str], calibrated: Calibrated) -> onnx.ModelProto:
    """The graph with all that can compute in INT8 doing so, apart from `keep` (nodes, by first output)."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.node[:], model.graph.value_info[:], model.graph.initializer[:]
    integer = set(integer_nodes(graph, keep))
    rounded = {key for key in integer if not _cut_behind(graph, key, integer)}  # for all readers
    written = _Writer(model, graph, calibrated)
    for key, node in graph.nodes.items():
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        merged = any(name in integer and name not in rounded for name in node.input)
        for place, name in enumerate(node.input):
            activation = name and name not in graph.weights and place < _read(graph, key)
            if name in rounded or (activation and key in integer and not merged):
                copy.input[place] = written.activation(name)
        if key in integer and node.op_type == "Conv":
            written.weights(copy, node.input[0])
        model.graph.node.append(copy)
    used = {name for node in model.graph.node for name in node.input}
    present = {tensor.name for tensor in model.graph.initializer}
    model.graph.initializer.extend(tensor for name, tensor in graph.weights.items() if name in used - present)
    return model


class _Writer:
    """Adds QuantizeLinear and DequantizeLinear to a graph on its way, each once."""

    def __init__(self, model: onnx.ModelProto, graph: Graph, calibrated: Calibrated) -> None:
        self._graph, self._source, self._calibrated = model.graph, graph, calibrated
        self._done: set[str] = set()
        self._kernels: dict[tuple[str, bytes], str] = {}
        self._scales: dict[str, npt.NDArray[np.float32]] = {}

    def activation(self, name: str) -> str:
        """The name of a tensor's rounded values."""
        result = f"{name}_rounded"
        if name not in self._done:
            self._done.add(name)
            values = self._calibrated.ranges[name]
            ends = self._ends(name, values.scale, np.uint8(values.zero))
            self._add("QuantizeLinear", [name, *ends], f"{name}_u8")
            self._add("DequantizeLinear", [f"{name}_u8", *ends], result)
        return result

    def weights(self, conv: onnx.NodeProto, image: str) -> None:
        """Round a convolution's weights and biases; image: the activation that it takes."""
        kernel_name = conv.input[1]
        kernel = numpy_helper.to_array(self._source.weights[kernel_name]).astype(np.float64)
        bias = np.zeros(len(kernel))
        if len(conv.input) > 2:
            bias = numpy_helper.to_array(self._source.weights[conv.input[2]]).astype(np.float64)
        step = float(self._calibrated.ranges[image].scale)
        floor = np.maximum(np.abs(bias) / (step * LARGEST_BIAS), 1e-12)  # of a channel that is all but 0
        scale = np.maximum(np.abs(kernel).reshape(len(kernel), -1).max(axis=1) / WEIGHT_LEVELS, floor)
        scale = scale.astype(np.float32)
        twin = self._scales.setdefault(kernel_name, scale)  # a mirrored network runs each layer twice
        if (floor <= 1.25 * twin).all():
            scale = twin
        wide = scale.astype(np.float64).reshape(-1, 1, 1, 1)
        codes = np.clip(np.rint(kernel / wide), -WEIGHT_LEVELS, WEIGHT_LEVELS)
        bias = bias + self._bias_of_rounding(conv, kernel - codes * wide, image)
        product = scale * np.float32(step)
        key = (kernel_name, scale.tobytes())
        if key not in self._kernels:
            self._kernels[key] = self._constant(f"{conv.output[0]}_weight", codes.astype(np.int8), scale)
        conv.input[1] = self._kernels[key]
        biases = np.rint(bias / product.astype(np.float64)).astype(np.int32)
        rounded = self._constant(f"{conv.output[0]}_bias", biases, product)
        del conv.input[2:]
        conv.input.append(rounded)

    def _bias_of_rounding(self, conv: onnx.NodeProto, error: FloatArray, image: str) -> FloatArray:
        """What rounding the weights takes from the mean of each output channel, float64 (out,)
        (Nagel et al., arXiv 1906.04721, 4.2; padding is left out). error: (out, in / groups, h, w)."""
        means, sums = self._calibrated.means[image], error.sum(axis=(2, 3))
        groups = len(means) // sums.shape[1]
        inputs = means.reshape(groups, -1).repeat(len(sums) // groups, axis=0)
        return np.asarray((sums * inputs).sum(axis=1))

    def _constant(
        self, name: str, codes: npt.NDArray[np.signedinteger], scale: npt.NDArray[np.float32]
    ) -> str:
        ends = self._ends(name, scale, np.zeros(len(scale), codes.dtype))
        self._graph.initializer.append(numpy_helper.from_array(codes, name))
        self._add("DequantizeLinear", [name, *ends], f"{name}_rounded", axis=0)
        return f"{name}_rounded"

    def _ends(self, name: str, scale: npt.ArrayLike, zero: npt.ArrayLike) -> tuple[str, str]:
        names = f"{name}_scale", f"{name}_zero"
        for one, values in zip(names, (scale, zero), strict=True):
            self._graph.initializer.append(numpy_helper.from_array(np.asarray(values), one))
        return names

    def _add(self, kind: str, inputs: list[str], output: str, axis: int | None = None) -> None:
        node = helper.make_node(kind, inputs, [output], f"node_{output}", axis=axis)
        self._graph.node.append(node)


def _read(graph: Graph, key: str) -> int:
    """How many of a node's first inputs are activations."""
    node = graph.nodes[key]
    return len(node.input) if node.op_type in ("Add", "Concat") else 1


def _gives_result(graph: Graph, key: str, results: Set[str]) -> bool:
    """Whether a node's output, or what an activation makes of it, is the graph's result."""
    if key in results:
        return True
    return all(
        graph.nodes[reader].op_type not in ("Conv", "Gemm", "MatMul")
        and _gives_result(graph, reader, results)
        for reader in graph.consumers.get(key, ())
    )


def _cut_behind(graph: Graph, key: str, integer: Set[str]) -> bool:
    """Whether a node's output only goes into an activation that becomes one with it."""
    readers = graph.consumers.get(key, [])
    return (
        graph.nodes[key].op_type in ("Conv", "Add")
        and len(readers) == 1
        and readers[0] in integer
        and graph.nodes[readers[0]].op_type in ACTIVATIONS
    )


def _mode(node: onnx.NodeProto) -> str:
    modes = (attribute.s.decode() for attribute in node.attribute if attribute.name == "mode")
    return next(modes, "nearest")
