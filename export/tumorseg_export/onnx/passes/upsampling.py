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
import onnx_ir as ir

from tumorseg_export.onnx.passes.base import (
    PassResult,
    constant,
    geometry,
    operator,
    read,
    size,
    weight,
    written,
)

Form = Literal["phases", "transposed"]
# Rules under which output sample i of a doubled axis is input sample i // 2.
HALVING = {("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")}
SAME_3X3 = ((3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 1)
Weights = npt.NDArray[np.float64]


def fold_upsampling(model: onnx.ModelProto, form: Form = "phases") -> PassResult:
    """Fold every 3x3 convolution that reads a nearest upsampling by two, by itself or in a Concat.

    `modified` counts the convolutions. An upsampling that something else reads, too, stays for that.
    """
    changed = read(model)
    count = 0
    for node in changed.graph:
        if (parts := _parts(node)) is not None:
            new = _split(changed.graph, node, parts, form)
            ir.convenience.replace_nodes_and_values(
                changed.graph, node, [node], new, node.outputs, new[-1].outputs
            )
            count += 1
    return PassResult(written(changed) if count else model, count)


def _parts(node: ir.Node) -> list[ir.Value] | None:
    """The values whose Concat (or which alone) the convolution reads, where one is an upsampling."""
    form = geometry(node)
    if form is None or (form.kernel, form.stride, form.dilation, form.pads, form.group) != SAME_3X3:
        return None
    parts = list(node.inputs[:1])
    context = node.inputs[0].producer() if node.inputs[0] is not None else None
    if context is not None and context.op_type == "Concat" and context.attributes["axis"].as_int() == 1:
        parts = list(context.inputs)
        if len(context.outputs[0].uses()) > 1 or context.outputs[0].is_graph_output():
            return None  # the Concat stays, and a second reading of its parts does not pay
    known = [part for part in parts if part is not None and _channels(part)]
    return known if len(known) == len(parts) and any(map(_doubled, known)) else None


def _channels(value: ir.Value) -> int:
    """Of an activation (N, C, H, W), 0 where that is open or it has another form."""
    channels = value.shape[1] if value.shape is not None and len(value.shape) == 4 else 0
    return channels if isinstance(channels, int) else 0


def _doubled(value: ir.Value) -> ir.Value | None:
    """The value of which this one is the nearest upsampling by two, if it is one."""
    node = value.producer()
    if node is None or node.op_type != "Resize" or node.inputs[0] is None:
        return None
    given = node.attributes
    rule = (
        given.get_string("coordinate_transformation_mode", "half_pixel"),
        given.get_string("nearest_mode", "round_prefer_floor"),
    )
    small, large = size(node.inputs[0]), size(value)
    if given.get_string("mode", "nearest") != "nearest" or rule not in HALVING or small is None:
        return None
    return node.inputs[0] if large == (2 * small[0], 2 * small[1]) else None


def _split(graph: ir.Graph, node: ir.Node, parts: list[ir.Value], form: Form) -> list[ir.Node]:
    """The nodes that replace a convolution; the last one's output takes the place of its."""
    output = node.outputs[0].name
    kernel = weight(node)  # (K, C, 3, 3)
    assert kernel is not None
    bias = list(node.inputs[2:3])
    nodes: list[ir.Node] = []
    terms: list[ir.Value] = []
    rest: list[tuple[ir.Value, npt.NDArray[np.float32]]] = []
    first = 0
    for index, part in enumerate(parts):
        share = kernel[:, first : first + _channels(part)]
        first += _channels(part)
        small = _doubled(part)
        if small is None:
            rest.append((part, share))
            continue
        write = _transposed if form == "transposed" else _phases
        nodes += write(graph, small, f"{output}_part{index}", share, bias)
        bias = []  # it is added once
        terms.append(nodes[-1].outputs[0])
    if rest:
        joined = rest[0][0]
        if len(rest) > 1:
            nodes.append(operator("Concat", [value for value, _ in rest], f"{output}_rest", axis=1))
            joined = nodes[-1].outputs[0]
        term = f"{output}_part_rest"
        shares = constant(graph, f"{term}_weight", np.concatenate([share for _, share in rest], axis=1))
        nodes.append(operator("Conv", [joined, shares], term, pads=[1, 1, 1, 1]))
        terms.append(nodes[-1].outputs[0])
    total = terms[0]
    for index, value in enumerate(terms[1:], 1):
        last = index == len(terms) - 1
        nodes.append(operator("Add", [total, value], str(output) if last else f"{output}_sum{index}"))
        total = nodes[-1].outputs[0]
    return nodes


def _phases(
    graph: ir.Graph,
    small: ir.Value,
    target: str,
    kernel: npt.NDArray[np.float32],
    bias: list[ir.Value | None],
) -> list[ir.Node]:
    """Four 2x2 convolutions of the small image, and their interleaving: (N, C, h, w) -> (N, K, 2h, 2w)."""
    nodes = []
    for row in range(2):
        for column in range(2):
            name = f"{target}_{row}{column}"
            phase = constant(graph, f"{name}_weight", phase_kernel(kernel, row, column))
            pads = [1 - row, 1 - column, row, column]
            nodes.append(operator("Conv", [small, phase, *bias], name, pads=pads))
    deep = operator("Concat", [node.outputs[0] for node in nodes], f"{target}_deep", axis=1)
    whole = operator("DepthToSpace", deep.outputs, target, blocksize=2, mode="DCR")
    return [*nodes, deep, whole]


def _transposed(
    graph: ir.Graph,
    small: ir.Value,
    target: str,
    kernel: npt.NDArray[np.float32],
    bias: list[ir.Value | None],
) -> list[ir.Node]:
    """The same as one transposed convolution."""
    whole = constant(graph, f"{target}_weight", transposed_kernel(kernel))
    return [operator("ConvTranspose", [small, whole, *bias], target, pads=[1, 1, 1, 1], strides=[2, 2])]


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
