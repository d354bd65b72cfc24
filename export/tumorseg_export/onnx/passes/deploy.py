"""The deploy form: resized uint8 pixels in, uint8 masks out, nothing left to do wrong on the device.

In front, every 8-bit value is looked up in the contract's own table of normalised values (a Gather), so that
the network sees the very bits that `tumorseg_runtime.processing.preprocess` makes. Behind, logits become, by
the contract's rule (`tumorseg_runtime.processing.decision`),

    0    outside of the class
    1    inside
    255  not a finite number: no decision

In the gray form one plane takes the place of three equal ones. Normalised channel c of a gray image is
a_c * u + b_c with u the first channel, so the first convolution needs u and a plane of ones only, with the
weights sum_c(a_c * w_c) and sum_c(b_c * w_c), summed in float64 and rounded once. Zero padding stays exact:
beyond the border u and the ones are both 0, as all three channels are.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from tumorseg_export.onnx.passes.base import (
    PassResult,
    constant,
    geometry,
    operator,
    read,
    weight,
    written,
)
from tumorseg_runtime.core.contract import SOFTMAX, Contract
from tumorseg_runtime.core.errors import CheckFailedError
from tumorseg_runtime.processing.preprocess import Preprocessor

MASK = "mask"
NO_DECISION = 255
TABLE, ONES = "normalisation", "ones"


def to_deploy(model: onnx.ModelProto, contract: Contract, *, gray: bool) -> PassResult:
    """uint8 `image` (batch, C, H, W) -> uint8 `mask` (batch, K, H, W); with `gray`, C is 1 in place of 3.

    Raises CheckFailedError where `gray` is asked of a network whose first node is no plain convolution.
    """
    changed = read(model)
    graph = changed.graph
    image, logits = graph.inputs[0], graph.outputs[0]
    assert image.shape is not None
    assert logits.shape is not None
    channels = 1 if gray else contract.channels
    sizes = ir.Shape([image.shape[0], channels, *image.shape[2:]])
    pixels = ir.val(image.name, ir.DataType.UINT8, sizes)
    front = _normalise(graph, pixels, contract, gray=gray)
    if gray:
        _take_gray(graph, image, contract)
    image.replace_all_uses_with(front[-1].outputs[0])
    graph.inputs[0] = pixels
    graph.insert_before(graph[0], front)
    graph.extend(back := _decide(graph, logits, contract))
    (mask,) = back[-1].outputs
    mask.dtype, mask.shape = ir.DataType.UINT8, logits.shape
    graph.outputs[0] = mask
    return PassResult(written(changed), 1)


def _normalise(graph: ir.Graph, pixels: ir.Value, contract: Contract, *, gray: bool) -> list[ir.Node]:
    """Nodes from pixels to what the network reads, the last one's output."""
    image = pixels.name
    table = Preprocessor(contract).table  # (C, 256)
    # By way of float, which holds them exactly: TensorRT takes uint8 into nothing else.
    exact = operator("Cast", [pixels], f"{image}_float", to=ir.DataType.FLOAT)
    index = operator("Cast", exact.outputs, f"{image}_index", to=ir.DataType.INT32)
    nodes = [exact, index]
    if gray:
        tables = {TABLE: table[0], ONES: np.ones(256, np.float32)}
    else:
        tables = {f"{TABLE}_{channel}": table[channel] for channel in range(contract.channels)}
    sources = [index.outputs[0]] * len(tables)
    if not gray and contract.channels > 1:
        planes = [ir.val(f"{image}_index_{name}") for name in tables]
        split = {"axis": 1, "num_outputs": len(planes)}
        nodes.append(ir.node("Split", index.outputs, split, outputs=planes, name=f"node_{image}_index_split"))
        sources = planes
    values = [constant(graph, name, np.ascontiguousarray(row)) for name, row in tables.items()]
    looked_up = [
        operator("Gather", [value, source], f"{image}_{value.name}")
        for value, source in zip(values, sources, strict=True)
    ]
    joined = [node.outputs[0] for node in looked_up]
    return [*nodes, *looked_up, operator("Concat", joined, f"{image}_normalised", axis=1)]  # (N, C, H, W)


def _take_gray(graph: ir.Graph, image: ir.Value, contract: Contract) -> None:
    """Give the first convolution the weights for a gray plane and a plane of ones."""
    readers = [node for node in image.consumers() if not _reads_batch(node)]
    form = geometry(readers[0]) if len(readers) == 1 else None
    if form is None or form.group != 1 or contract.channels != 3:
        raise CheckFailedError(
            f"the network reads its image with {', '.join(node.op_type for node in readers)} and has "
            f"{contract.channels} channels, expected one plain Conv and 3: take the target onnx-deploy"
        )
    kernel, old = weight(readers[0]), readers[0].inputs[1]
    assert kernel is not None
    assert old is not None
    readers[0].replace_input_with(1, constant(graph, f"{old.name}_gray", gray_kernel(kernel, contract)))


def _reads_batch(node: ir.Node) -> bool:
    start, end = (node.attributes.get_int(name, -1) for name in ("start", "end"))
    return node.op_type == "Shape" and (start, end) == (0, 1)


def gray_kernel(kernel: np.ndarray, contract: Contract) -> np.ndarray:
    """(K, 3, kh, kw) for normalised channels -> (K, 2, kh, kw) for the first of them and a plane of ones."""
    mean, std = (np.asarray(values, np.float64)[:, None, None] for values in (contract.mean, contract.std))
    exact = kernel.astype(np.float64)
    scale, shift = std[0] / std, (mean[0] - mean) / std  # channel c is scale_c * u + shift_c
    return np.stack([(exact * scale).sum(axis=1), (exact * shift).sum(axis=1)], axis=1).astype(kernel.dtype)


def _decide(graph: ir.Graph, logits: ir.Value, contract: Contract) -> list[ir.Node]:
    """Nodes from logits to the mask, the last one's output."""
    limits = {
        "threshold": contract.logit_threshold,
        "largest_number": np.finfo(np.float32).max,
        "no_decision": NO_DECISION,
    }
    threshold, largest, no_decision = (
        constant(graph, name, np.asarray(value, np.float32)) for name, value in limits.items()
    )
    if contract.rule == SOFTMAX:
        numbers = np.arange(len(contract.classes), dtype=np.int64)[None, :, None, None]
        winner = operator("ArgMax", [logits], "winner", axis=1)  # of equal ones the first
        largest_one = operator("Equal", [*winner.outputs, constant(graph, "numbers", numbers)], "largest_one")
        above = operator("Greater", [logits, threshold], "above")
        inside = operator("And", [*largest_one.outputs, *above.outputs], "inside")
        deciding = [winner, largest_one, above, inside]
    else:
        inside = operator("GreaterOrEqual", [logits, threshold], "inside")
        deciding = [inside]
    number = operator("Cast", inside.outputs, "inside_float", to=ir.DataType.FLOAT)
    magnitude = operator("Abs", [logits], "magnitude")
    finite = operator("LessOrEqual", [*magnitude.outputs, largest], "finite")  # false for not a number, too
    decision = operator("Where", [*finite.outputs, *number.outputs, no_decision], "decision")
    mask = operator("Cast", decision.outputs, MASK, to=ir.DataType.UINT8)
    return [*deciding, number, magnitude, finite, decision, mask]
