"""Convolutions behind a nearest upsampling by two, computed on the small image.

`Resize(nearest, 2x)` -> [`Concat` with other tensors] -> `Conv` 3x3 is the block of smp's U-Net decoders.
A 3x3 window of the upsampled image sees only 2x2 different pixels, so four kernels of 2x2 (one for each
place of an output pixel in its 2x2 block), whose weights are sums of the 3x3 kernel's, give the same with
4/9 of the multiplications. A convolution of a Concat is the sum of the convolutions of its parts, so the
upsampled part can be split off, and the Concat vanishes where only it was joined.

The four kernels are one ConvTranspose (kernel 4, stride 2, padding 1), or four Conv whose outputs a
DepthToSpace interleaves. Weights are summed in float64 and rounded once.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from tumorseg_export.onnx.passes.base import PassResult, View, attributes, constant, geometry, rebuilt

Form = Literal["phases", "transposed"]
# Rules under which output sample i of a doubled axis is input sample i // 2.
HALVING = {(b"asymmetric", b"floor"), (b"half_pixel", b"round_prefer_floor")}
SAME_3X3 = ((3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 1)
Weights = npt.NDArray[np.float64]


def fold_upsampling(model: onnx.ModelProto, form: Form = "phases") -> PassResult:
    """Fold every 3x3 convolution that reads a nearest upsampling by two, by itself or in a Concat.

    `modified` counts the convolutions. An upsampling that something else reads, too, stays for that.
    """
    view = View(model)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    changed = 0
    for node in model.graph.node:
        parts = _parts(view, node)
        if parts is None:
            nodes.append(node)
            continue
        replaced, new = _split(view, node, parts, form)
        nodes += replaced
        weights += new
        changed += 1
    if not changed:
        return PassResult(model, 0)
    return PassResult(rebuilt(model, _alive(nodes, view.results), weights), changed)


def _parts(view: View, node: onnx.NodeProto) -> list[str] | None:
    """The tensors whose Concat (or which alone) the convolution reads, where one is an upsampling."""
    if node.op_type != "Conv" or node.input[1] not in view.weights:
        return None
    form = geometry(node, view.weights[node.input[1]])
    if form is None or (form.kernel, form.stride, form.dilation, form.pads, form.group) != SAME_3X3:
        return None
    parts = [node.input[0]]
    context = view.producer.get(node.input[0])
    if context is not None and context.op_type == "Concat" and attributes(context)["axis"] == 1:
        parts = list(context.input)
        if len(view.readers[node.input[0]]) > 1 or node.input[0] in view.results:
            return None  # the Concat stays, and a second reading of its parts does not pay
    if any(len(view.shapes.get(name, ())) != 4 or not view.shapes[name][1] for name in parts):
        return None
    return parts if any(_doubled(view, name) is not None for name in parts) else None


def _doubled(view: View, name: str) -> str | None:
    """The tensor of which `name` is the nearest upsampling by two, if it is one."""
    node = view.producer.get(name)
    if node is None or node.op_type != "Resize":
        return None
    given = attributes(node)
    rule = (
        given.get("coordinate_transformation_mode", b"half_pixel"),
        given.get("nearest_mode", b"round_prefer_floor"),
    )
    small, large = view.size(node.input[0]), view.size(name)
    if given.get("mode", b"nearest") != b"nearest" or rule not in HALVING or small is None or large is None:
        return None
    return node.input[0] if large == (2 * small[0], 2 * small[1]) else None


def _split(
    view: View, node: onnx.NodeProto, parts: list[str], form: Form
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes and weights that replace a convolution."""
    output = node.output[0]
    kernel = numpy_helper.to_array(view.weights[node.input[1]])  # (K, C, 3, 3)
    bias = list(node.input[2:3])
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    terms: list[str] = []
    rest: list[tuple[str, npt.NDArray[np.float32]]] = []
    first = 0
    for index, name in enumerate(parts):
        channels = view.shapes[name][1]
        share = kernel[:, first : first + channels]
        first += channels
        small = _doubled(view, name)
        if small is None:
            rest.append((name, share))
            continue
        term = f"{output}_part{index}"
        write = _transposed if form == "transposed" else _phases
        more, new = write(small, term, share, bias)
        bias = []  # it is added once
        nodes += more
        weights += new
        terms.append(term)
    if rest:
        joined = rest[0][0]
        if len(rest) > 1:
            joined = f"{output}_rest"
            nodes.append(
                helper.make_node("Concat", [name for name, _ in rest], [joined], f"node_{joined}", axis=1)
            )
        term = f"{output}_part_rest"
        weights.append(constant(f"{term}_weight", np.concatenate([share for _, share in rest], axis=1)))
        nodes.append(
            helper.make_node("Conv", [joined, f"{term}_weight"], [term], f"node_{term}", pads=[1, 1, 1, 1])
        )
        terms.append(term)
    return _summed(nodes, terms, output), weights


def _summed(nodes: list[onnx.NodeProto], terms: list[str], output: str) -> list[onnx.NodeProto]:
    """The nodes, and the sum of the terms under the name of the output."""
    if len(terms) == 1:
        nodes[-1].output[0] = output
        return nodes
    total = terms[0]
    for index, term in enumerate(terms[1:], 1):
        result = output if index == len(terms) - 1 else f"{output}_sum{index}"
        nodes.append(helper.make_node("Add", [total, term], [result], f"node_{result}"))
        total = result
    return nodes


def _phases(
    context: str, target: str, kernel: npt.NDArray[np.float32], bias: list[str]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Four 2x2 convolutions of the small image, and their interleaving: (N, C, h, w) -> (N, K, 2h, 2w)."""
    nodes, weights, names = [], [], []
    for row in range(2):
        for column in range(2):
            name = f"{target}_{row}{column}"
            weights.append(constant(f"{name}_weight", phase_kernel(kernel, row, column)))
            nodes.append(
                helper.make_node(
                    "Conv", [context, f"{name}_weight", *bias], [name], f"node_{name}",
                    pads=[1 - row, 1 - column, row, column],
                )
            )  # fmt: skip
            names.append(name)
    nodes.append(helper.make_node("Concat", names, [f"{target}_deep"], f"node_{target}_deep", axis=1))
    nodes.append(
        helper.make_node(
            "DepthToSpace", [f"{target}_deep"], [target], f"node_{target}", blocksize=2, mode="DCR"
        )
    )
    return nodes, weights


def _transposed(
    context: str, target: str, kernel: npt.NDArray[np.float32], bias: list[str]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The same as one transposed convolution."""
    weight = constant(f"{target}_weight", transposed_kernel(kernel))
    node = helper.make_node(
        "ConvTranspose", [context, weight.name, *bias], [target], f"node_{target}",
        strides=[2, 2], pads=[1, 1, 1, 1],
    )  # fmt: skip
    return [node], [weight]


def phase_kernel(kernel: npt.NDArray[np.float32], row: int, column: int) -> npt.NDArray[np.float32]:
    """(K, C, 3, 3) -> (K, C, 2, 2) for the output pixels at (row, column) of their 2x2 block."""
    exact: Weights = kernel.astype(np.float64)
    for axis, place in ((2, row), (3, column)):
        first, middle, last = (exact.take([i], axis) for i in range(3))
        # at place 0 the window's last two samples are one pixel, at place 1 its first two
        taps = (first, middle + last) if place == 0 else (first + middle, last)
        exact = np.concatenate(taps, axis)
    return exact.astype(kernel.dtype)


def transposed_kernel(kernel: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(K, C, 3, 3) -> (C, K, 4, 4): what each small pixel adds to the 4x4 output pixels around it."""
    exact: Weights = kernel.astype(np.float64)
    for axis in (2, 3):
        first, middle, last = (exact.take([i], axis) for i in range(3))
        exact = np.concatenate((last, middle + last, first + middle, first), axis)
    return exact.transpose(1, 0, 2, 3).astype(kernel.dtype)


def _alive(nodes: list[onnx.NodeProto], results: set[str]) -> list[onnx.NodeProto]:
    """The nodes on which the results depend, in their order."""
    needed = set(results)
    alive = []
    for node in reversed(nodes):
        if any(name in needed for name in node.output):
            needed |= set(node.input)
            alive.append(node)
    return alive[::-1]
