"""The deploy form: resized uint8 pixels in, uint8 masks out, nothing left to do wrong on the device.

In front, every 8-bit value is looked up in the contract's own table of normalised values (a Gather), so that
the network sees the very bits that `tumorseg_runtime.processing.preprocess` makes. Behind, logits become

    0    below the threshold
    1    at it or above
    255  not a finite number: no decision

In the gray form one plane takes the place of three equal ones. Normalised channel c of a gray image is
a_c * u + b_c with u the first channel, so the first convolution needs u and a plane of ones only, with the
weights sum_c(a_c * w_c) and sum_c(b_c * w_c), summed in float64 and rounded once. Zero padding stays exact:
beyond the border u and the ones are both 0, as all three channels are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tumorseg_export.onnx.passes.base import PassResult, View, constant, geometry, rebuilt
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import CheckFailedError
from tumorseg_runtime.processing.preprocess import Preprocessor

MASK = "mask"
NO_DECISION = 255
TABLE, ONES = "normalisation", "ones"


def to_deploy(model: onnx.ModelProto, contract: Contract, *, gray: bool) -> PassResult:
    """uint8 `image` (batch, C, H, W) -> uint8 `mask` (batch, K, H, W); with `gray`, C is 1 in place of 3.

    Raises CheckFailedError where `gray` is asked of a network whose first node is no plain convolution.
    """
    image, logits = model.graph.input[0], model.graph.output[0]
    size = [contract.height, contract.width]
    front, weights, context = _normalise(image.name, contract, gray=gray)
    nodes, first_weight = _renamed(model, image.name, context, contract, gray=gray)
    back, limits = _decide(logits.name, contract)
    result = rebuilt(model, [*front, *nodes, *back], [*weights, *first_weight, *limits])
    batch = image.type.tensor_type.shape.dim[0].dim_param
    channels = 1 if gray else contract.channels
    for values, name, planes in (
        (result.graph.input, image.name, channels),
        (result.graph.output, MASK, len(contract.classes)),
    ):
        del values[:]
        values.append(helper.make_tensor_value_info(name, TensorProto.UINT8, [batch, planes, *size]))
    return PassResult(result, 1)


def _normalise(
    image: str, contract: Contract, *, gray: bool
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], str]:
    """Nodes and weights from pixels to what the network reads, and the name of that."""
    table = Preprocessor(contract).table  # (C, 256)
    index = f"{image}_index"
    # By way of float, which holds them exactly: TensorRT takes uint8 into nothing else.
    nodes = [
        helper.make_node("Cast", [image], [f"{image}_float"], f"node_{image}_float", to=TensorProto.FLOAT),
        helper.make_node("Cast", [f"{image}_float"], [index], f"node_{index}", to=TensorProto.INT32),
    ]
    normal = f"{image}_normalised"
    if gray:
        tables = {TABLE: table[0], ONES: np.ones(256, np.float32)}
        sources = dict.fromkeys(tables, index)
    else:
        tables = {f"{TABLE}_{channel}": table[channel] for channel in range(contract.channels)}
        sources = {name: f"{index}_{name}" for name in tables}
        if contract.channels == 1:
            sources = dict.fromkeys(tables, index)
        else:
            nodes.append(
                helper.make_node(
                    "Split", [index], list(sources.values()), f"node_{index}_split",
                    axis=1, num_outputs=len(sources),
                )
            )  # fmt: skip
    for name, context in sources.items():
        nodes.append(helper.make_node("Gather", [name, context], [f"{image}_{name}"], f"node_{image}_{name}"))
    nodes.append(
        helper.make_node("Concat", [f"{image}_{name}" for name in tables], [normal], f"node_{normal}", axis=1)
    )  # (N, C, H, W)
    return nodes, [constant(name, np.ascontiguousarray(values)) for name, values in tables.items()], normal


def _renamed(
    model: onnx.ModelProto, image: str, context: str, contract: Contract, *, gray: bool
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The network's nodes, reading `context`; with `gray`, its first convolution has other weights."""
    view = View(model)
    weights = []
    if gray:
        readers = view.readers.get(image, [])
        kernel = (
            view.weights.get(readers[0].input[1])
            if len(readers) == 1 and readers[0].op_type == "Conv"
            else None
        )
        form = None if kernel is None else geometry(readers[0], kernel)
        if kernel is None or form is None or form.group != 1 or contract.channels != 3:
            raise CheckFailedError(
                f"the network reads its image with {', '.join(node.op_type for node in readers)} and has "
                f"{contract.channels} channels, expected one plain Conv and 3: take the target onnx-deploy"
            )
        weights.append(constant(f"{kernel.name}_gray", gray_kernel(numpy_helper.to_array(kernel), contract)))
    nodes = []
    for node in model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for i, name in enumerate(node.input):
            if name == image:
                copy.input[i] = context
                if gray:
                    copy.input[1] = weights[0].name
        nodes.append(copy)
    return nodes, weights


def gray_kernel(kernel: np.ndarray, contract: Contract) -> np.ndarray:
    """(K, 3, kh, kw) for normalised channels -> (K, 2, kh, kw) for the first of them and a plane of ones."""
    mean, std = (np.asarray(values, np.float64)[:, None, None] for values in (contract.mean, contract.std))
    exact = kernel.astype(np.float64)
    scale, shift = std[0] / std, (mean[0] - mean) / std  # channel c is scale_c * u + shift_c
    return np.stack([(exact * scale).sum(axis=1), (exact * shift).sum(axis=1)], axis=1).astype(kernel.dtype)


def _decide(logits: str, contract: Contract) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and weights from logits to the mask."""
    limits = {
        "threshold": contract.logit_threshold,
        "largest_number": np.finfo(np.float32).max,
        "no_decision": NO_DECISION,
    }
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("GreaterOrEqual", [logits, "threshold"], "inside", {}),
        ("Cast", ["inside"], "inside_float", {"to": TensorProto.FLOAT}),
        ("Abs", [logits], "magnitude", {}),
        ("LessOrEqual", ["magnitude", "largest_number"], "finite", {}),  # false for not a number, too
        ("Where", ["finite", "inside_float", "no_decision"], "decision", {}),
        ("Cast", ["decision"], MASK, {"to": TensorProto.UINT8}),
    ]
    nodes = [
        helper.make_node(operator, inputs, [output], f"node_{output}", **given)
        for operator, inputs, output, given in steps
    ]
    return nodes, [constant(name, np.asarray(value, np.float32)) for name, value in limits.items()]
