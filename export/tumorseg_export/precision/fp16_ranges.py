"""What FP16 must hold: the range of every tensor of the FP32 graph on the calibration images.

Three figures per node and image, all as scalars that the graph computes itself beside its logits:

- the largest magnitude of what goes into it and comes out of it;
- for an operator that sums (`SUMS`, `NORMS`), a bound that no partial sum can exceed in whatever order a
  device adds: from the largest magnitude and the weights where that is low enough, else the sum of |inputs|
  times |weights|, which is run; for a normalisation also the sum of squares;
- the share of its output that is not zero but below FP16's smallest normal number, 2**-14, where digits get
  lost. It is reported and decides nothing: what it does to the masks is measured by the search.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tumorseg_export.precision.fp16_graph import Graph
from tumorseg_runtime.core.errors import CheckFailedError

if TYPE_CHECKING:
    from tumorseg_export.precision.trial import Trials
    from tumorseg_runtime.parity.reference import Golden

FloatArray = npt.NDArray[np.float32]
LARGEST = float(np.finfo(np.float16).max)  # 65,504
SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)  # 2**-14
HEADROOM = 2.0  # other images than these may go further; a kept layer costs little, an infinity everything
# Operators that add up many numbers, each with the one that adds up their magnitudes and divides by nothing.
SUMS = {
    **{name: name for name in ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "Sum")},
    **{name: name for name in ("ReduceSum", "ReduceL1", "ReduceSumSquare", "BatchNormalization")},
    "AveragePool": "LpPool", "GlobalAveragePool": "GlobalLpPool", "ReduceMean": "ReduceSum",
    "ReduceL2": "ReduceSumSquare",
}  # fmt: skip
# Normalisations that add up values, and squares of values, over all of an instance, a group or a vector.
NORMS = ("InstanceNormalization", "GroupNormalization", "LayerNormalization", "RMSNormalization")


@dataclasses.dataclass(frozen=True)
class Extreme:
    """The largest magnitude that was seen, and where: layer by name, image by its name or 'weights'."""

    layer: str
    image: str
    value: float


@dataclasses.dataclass(frozen=True)
class Ranges:
    """Per node, by its key: extremes of its tensors, of its partial sums (where it sums) and of its weights.

    small: the largest share of subnormal values, 0..1, in any node's output on any image, in `value`.
    """

    values: dict[str, Extreme]
    sums: dict[str, Extreme]
    weights: dict[str, Extreme]
    small: Extreme

    def too_large(self, graph: Graph) -> dict[str, Extreme]:
        """The nodes that FP16 cannot hold, with the figure that says so."""
        return {
            key: extreme
            for key in graph.typed
            for extreme in (self.weights[key], self.values[key], self.sums.get(key, NOTHING))
            if extreme.value * HEADROOM > LARGEST
        }


def measure(graph: Graph, images: Sequence[Golden], trials: Trials) -> tuple[Ranges, dict[str, FloatArray]]:
    """Ranges over the images, and the FP32 graph's logits (K, H, W) of each by name.

    Raises CheckFailedError where FP32 itself overflows: layer, image, figure.
    """
    tensors = list(dict.fromkeys(name for key in graph.typed for name in graph.tensors(key)))
    seen, logits = _run(_with_values(graph, tensors), graph, images, trials)
    values, weights = {}, {}
    for key in graph.typed:
        layer = graph.layer(key)
        values[key] = _largest(_worst(seen[f"value:{name}"], layer) for name in graph.tensors(key))
        weights[key] = _largest(
            Extreme(layer, "weights", float(np.abs(numpy_helper.to_array(weight)).max()))
            for weight in graph.weights_of(key)
            if math.prod(weight.dims)
        )
        broken = next((one for one in (values[key], weights[key]) if not math.isfinite(one.value)), None)
        if broken is not None:
            raise CheckFailedError(
                f"layer {layer} reaches {broken.value} in FP32 already ({broken.image}), expected finite "
                "numbers: train the network again"
            )
    small = _largest(_worst(seen[f"small:{key}"], graph.layer(key)) for key in graph.typed)
    summing = [key for key in graph.typed if graph.nodes[key].op_type in (*SUMS, *NORMS)]
    sums = {key: _bound(graph, key, values) for key in summing}
    if close := [key for key, bound in sums.items() if bound.value * HEADROOM > LARGEST]:  # worth a run
        seen, _ = _run(_with_sums(graph, close), graph, images, trials)
        sums.update({key: _worst(seen[f"sum:{key}"], graph.layer(key)) for key in close})
    return Ranges(values, sums, weights, small), logits


def _run(
    model: onnx.ModelProto, graph: Graph, images: Sequence[Golden], trials: Trials
) -> tuple[dict[str, dict[str, float]], dict[str, FloatArray]]:
    """Figures as {figure: {image: value}}, and logits (K, H, W) by image."""
    seen: dict[str, dict[str, float]] = {}
    logits = {}
    with trials.session(model) as run:
        for image in images:
            outputs = run(image.tensor[None])
            logits[image.name] = outputs.pop(graph.model.graph.output[0].name)[0]
            for name, value in outputs.items():
                seen.setdefault(name, {})[image.name] = float(value)
    return seen, logits


def _worst(values: dict[str, float], layer: str) -> Extreme:
    return _largest(Extreme(layer, image, value) for image, value in values.items())


def _bound(graph: Graph, key: str, values: dict[str, Extreme]) -> Extreme:
    """No partial sum is larger: the node's largest magnitude times the largest sum of a filter's |weights|.

    Infinite for an operator of which that is not known without a run.
    """
    node, largest = graph.nodes[key], values[key]
    given = _attributes(node)
    if node.op_type == "AveragePool":
        return dataclasses.replace(largest, value=largest.value * math.prod(given["kernel_shape"]))
    if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] not in graph.weights:
        return dataclasses.replace(largest, value=math.inf)
    kernel, *bias = (
        np.abs(numpy_helper.to_array(weight)).astype(np.float64) for weight in graph.weights_of(key)
    )
    if node.op_type == "Conv":
        filters = kernel.reshape(len(kernel), -1).sum(axis=1)
    else:
        filters = kernel.sum(axis=-1 if given.get("transB") else -2) * abs(given.get("alpha", 1.0))
    sums = filters * largest.value + (bias[0] * abs(given.get("beta", 1.0)) if bias else 0.0)
    return dataclasses.replace(largest, value=float(np.max(sums)))


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _largest(extremes: Iterable[Extreme]) -> Extreme:
    return max(extremes, key=lambda one: math.inf if math.isnan(one.value) else one.value, default=NOTHING)


NOTHING = Extreme("", "", 0.0)


def _with_values(graph: Graph, tensors: Sequence[str]) -> onnx.ModelProto:
    """The graph with a scalar output for every figure: `value:<tensor>` and `small:<node>`.

    ONNX Runtime runs what leads to the last leaf of a graph first. The figures stand in reverse order, so
    that each tensor is measured soon after it is made, and freed (measured: 1.2 GB and not 2.3 GB).
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    limit, zero = "measure:limit", "measure:zero"
    for name, number in ((limit, SMALLEST_NORMAL), (zero, 0.0)):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(number, np.float32), name))
    for name in reversed(tensors):
        size = f"abs:{name}"
        model.graph.node.append(helper.make_node("Abs", [name], [size]))
        _add_figure(model, f"value:{name}", size)
        if name in graph.slots and graph.slots[name].inputs:  # a node's first output: count subnormal values
            for operator, inputs, output in (
                ("Less", [size, limit], f"less:{name}"),
                ("Greater", [size, zero], f"more:{name}"),
                ("And", [f"less:{name}", f"more:{name}"], f"both:{name}"),
            ):
                model.graph.node.append(helper.make_node(operator, inputs, [output]))
            counted = f"counted:{name}"
            model.graph.node.append(
                helper.make_node("Cast", [f"both:{name}"], [counted], to=TensorProto.FLOAT)
            )
            _add_figure(model, f"small:{name}", counted, "ReduceMean")
    return model


def _with_sums(graph: Graph, keys: Sequence[str]) -> onnx.ModelProto:
    """The graph with a scalar output `sum:<node>` for each of the nodes."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for key in reversed(keys):
        if graph.nodes[key].op_type in NORMS:
            _add_norm(model, graph.nodes[key], key)
            continue
        node = onnx.NodeProto()
        node.CopyFrom(graph.nodes[key])
        kind, given = node.op_type, _attributes(node)
        node.op_type, node.name, node.output[0] = SUMS[kind], f"sum {key}", f"sums:{key}"
        for i in graph.slots[key].inputs:
            size = f"abs:{key}:{i}"
            model.graph.node.append(helper.make_node("Abs", [node.input[i]], [size]))
            node.input[i] = size
        if kind == "BatchNormalization":  # (|x| + |mean|) * |scale| / deviation + |bias|
            model.graph.node.append(helper.make_node("Neg", [node.input[3]], [f"neg:{key}"]))
            node.input[3] = f"neg:{key}"
        if kind == "AveragePool":
            given = {name: value for name, value in given.items() if name != "count_include_pad"}
        if SUMS[kind] in ("LpPool", "GlobalLpPool"):
            given["p"] = 1
        given |= {name: abs(given[name]) for name in ("alpha", "beta") if name in given}
        del node.attribute[:]
        node.attribute.extend(helper.make_attribute(name, value) for name, value in given.items())
        model.graph.node.append(node)
        _add_figure(model, f"sum:{key}", f"sums:{key}")
    return model


def _add_norm(model: onnx.ModelProto, node: onnx.NodeProto, key: str) -> None:
    """`sum:<node>` of a normalisation: the larger one of the sums of magnitudes and of squares of what it
    normalises at once, which is one row of a matrix."""
    rows, axis, given = f"rows:{key}", f"axis:{key}", _attributes(node)
    if node.op_type in ("InstanceNormalization", "GroupNormalization"):
        shape = f"shape:{key}"
        instance = node.op_type == "InstanceNormalization"
        parts = np.array([0, 0 if instance else given["num_groups"], -1], np.int64)
        model.graph.initializer.append(numpy_helper.from_array(parts, shape))
        model.graph.node.append(helper.make_node("Reshape", [node.input[0], shape], [rows]))
    else:
        model.graph.node.append(
            helper.make_node("Flatten", [node.input[0]], [rows], axis=given.get("axis", -1))
        )
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), axis))
    for operator in ("ReduceL1", "ReduceSumSquare"):
        model.graph.node.append(helper.make_node(operator, [rows, axis], [f"{operator}:{key}"]))
    both = [f"ReduceL1:{key}", f"ReduceSumSquare:{key}"]
    model.graph.node.append(helper.make_node("Max", both, [f"sums:{key}"]))
    _add_figure(model, f"sum:{key}", f"sums:{key}")


def _add_figure(model: onnx.ModelProto, name: str, tensor: str, operator: str = "ReduceMax") -> None:
    model.graph.node.append(helper.make_node(operator, [tensor], [name], keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, []))
