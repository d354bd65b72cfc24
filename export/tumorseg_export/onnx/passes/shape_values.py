"""What a graph computes from the size of its batch alone: as numbers, for any batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Numbers = npt.NDArray[np.int64]
BATCHES = (
    1,
    2,
    5,
)  # three points fix a polynomial of second degree: no product of sizes has the batch thrice
_WHOLE = 2**62  # a slice's end may be the largest int64


class Unknown(Exception):
    """A value that hangs on more than the batch."""


def at_batches(value: ir.Value | None, graph: ir.Graph) -> tuple[Numbers, ...] | None:
    """The value for each of BATCHES; None where it hangs on more than the size of the batch."""
    try:
        return tuple(_number(value, graph, batch, {}) for batch in BATCHES)
    except Unknown:
        return None


def sizes(value: ir.Value | None, graph: ir.Graph) -> list[int | None] | None:
    """A vector of sizes, None in it for one that changes with the batch; None where it hangs on more."""
    found = at_batches(value, graph)
    if found is None or any(one.shape != found[0].shape or one.ndim != 1 for one in found):
        return None
    return [column[0] if len(set(column)) == 1 else None for column in np.stack(found, axis=1).tolist()]


def shape_at(value: ir.Value, graph: ir.Graph, batch: int) -> tuple[int, ...]:
    """The inferred shape of an activation, whose only open size is the graph's batch; raises Unknown."""
    first = graph.inputs[0].shape
    if value.shape is None or first is None:
        raise Unknown
    open_size = first[0]
    if not all(isinstance(size, int) or size == open_size for size in value.shape):
        raise Unknown
    return tuple(size if isinstance(size, int) else batch for size in value.shape)


def _number(value: ir.Value | None, graph: ir.Graph, batch: int, known: dict[str, Numbers]) -> Numbers:
    if value is None:
        raise Unknown
    if value.const_value is not None:
        return value.const_value.numpy()
    node = value.producer()
    if node is None or node.op_type not in _RULES:
        raise Unknown
    name = value.name or ""
    if name not in known:
        if node.op_type == "Shape":
            known[name] = _measured(node, graph, batch)
        else:
            inputs = [_number(one, graph, batch, known) for one in node.inputs]
            known[name] = _RULES[node.op_type](node, *inputs)
    return known[name]


def _measured(node: ir.Node, graph: ir.Graph, batch: int) -> Numbers:
    assert node.inputs[0] is not None
    shape = np.array(shape_at(node.inputs[0], graph, batch), np.int64)
    return shape[slice(node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape)))]


def _slice(node: ir.Node, data: Numbers, starts: Numbers, ends: Numbers, *more: Numbers) -> Numbers:
    axes = more[0] if more else np.arange(len(starts))
    steps = more[1] if len(more) > 1 else np.ones(len(starts), np.int64)
    cut = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 1:
            raise Unknown
        cut[int(axis)] = slice(int(max(start, -_WHOLE)), int(min(end, _WHOLE)), int(step))
    return data[tuple(cut)]


def _unsqueeze(node: ir.Node, data: Numbers, axes: Numbers) -> Numbers:
    return np.expand_dims(data, tuple(axes.tolist()))


def _squeeze(node: ir.Node, data: Numbers, axes: Numbers | None = None) -> Numbers:
    return data.squeeze() if axes is None else data.squeeze(tuple(axes.tolist()))


_RULES: dict[str, Callable[..., Any]] = {
    "Shape": _measured,
    "Slice": _slice,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Concat": lambda node, *parts: np.concatenate(parts, axis=node.attributes.get_int("axis", 0)),
    "Gather": lambda node, data, index: np.take(data, index, axis=node.attributes.get_int("axis", 0)),
    "Range": lambda node, start, limit, step: np.arange(int(start), int(limit), int(step)),
    "Add": lambda node, one, other: one + other,
    "Mul": lambda node, one, other: one * other,
    "Identity": lambda node, data: data,
    "Cast": lambda node, data: data,
}
