"""Which layers stay in FP32 because FP16 would move the masks, found by running.

1. Nothing but what FP16 cannot hold is kept. Where that meets the goal on every calibration image, the
   search ends: the usual case.
2. Every unit (a layer with weights and the activations behind it) is halved alone, the rest in FP32, on the
   images that came out worst. Its effect is the logit error that it alone makes where masks are decided.
3. The shortest prefix of that ranking that meets the goal on every image is kept (bisection).
4. From the weakest on, units are given back to FP16 as long as the goal is still met.

Trials are capped by number and not by time, so that a slow machine finds the same layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence, Set

import numpy as np
import onnx

from tumorseg_export.precision.fp16_graph import Graph, to_mixed
from tumorseg_export.precision.trial import FloatArray, Trials
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.parity.budget import Budget
from tumorseg_runtime.parity.compare import ImageParity
from tumorseg_runtime.parity.reference import Golden
from tumorseg_runtime.processing.decision import distances

RANKED_ON = 2  # images for step 2
MOST_RETURNED = 12  # trials of step 4
MOST_KEPT = 0.5  # of the network's multiplications; beyond it the file is no FP16 network
WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Operators that only move values: they round nothing, and take the type of what is around them.
MOVES = {
    "Concat", "MaxPool", "Slice", "Split", "Pad", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten",
    "Expand", "Identity", "DepthToSpace", "SpaceToDepth", "Gather",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Unit:
    """A layer with weights and the activations behind it, up to the next such layer."""

    layer: str
    nodes: tuple[str, ...]
    multiplications: int


@dataclasses.dataclass(frozen=True)
class Effect:
    """What one unit in FP16 does by itself: root mean square of the logit error, in standard deviations of
    the logits, over the pixels near the threshold."""

    unit: Unit
    error: float


@dataclasses.dataclass(frozen=True)
class Found:
    """What the search found.

    kept: units in FP32 for their effect, the strongest first. nodes: all nodes in FP32, forced ones too.
    before, after: figures of every image with only the forced nodes in FP32, and at the end.
    met: whether the goal is met; else `after` is the best that was allowed.
    trials: graphs that were run.
    """

    kept: tuple[Effect, ...]
    nodes: frozenset[str]
    before: tuple[ImageParity, ...]
    after: tuple[ImageParity, ...]
    met: bool
    trials: int


def goal_of(budget: Budget) -> Budget:
    """Half of what parity allows: the calibration images are few, and others must stay in the budget too."""

    def half(value: float | None) -> float | None:
        return None if value is None else value / 2

    return Budget(
        relative_error=budget.relative_error / 2,
        free_pixels=budget.free_pixels // 2,
        mean_error=half(budget.mean_error),
        cosine=None if budget.cosine is None else (1 + budget.cosine) / 2,
        flips_per_border=half(budget.flips_per_border),
        hd95_px=half(budget.hd95_px),
        flipped_share=half(budget.flipped_share),
        flips_per_border_in_all=half(budget.flips_per_border_in_all),
    )


def search(
    graph: Graph,
    forced: Set[str],
    multiplications: dict[str, int],
    trials: Trials,
    goal: Budget,
    log: Callable[[str], None] = lambda line: None,
    to_mixed: Callable[[Graph, Set[str]], onnx.ModelProto] = to_mixed,
) -> Found:
    """The units to keep in FP32 beside the forced nodes, so that the goal is met on all images.

    to_mixed: gives the graph in the lower precision but for some nodes, FP16's unless another is named.
    """
    run = 1
    before = trials.compare_all(to_mixed(graph, with_moves(graph, forced)), goal)
    if not any(image.breaches for image in before):
        return Found((), with_moves(graph, forced), tuple(before), tuple(before), True, run)
    log(f"FP16 misses its goal ({_worst_first(before)[0].breaches[0]}): ranking layers")
    units = units_of(graph, multiplications)
    worst = [image.image for image in _worst_first(before)[:RANKED_ON]]
    images = [image for image in trials.images if image.name in worst]
    ranked = rank(graph, units, forced, trials, images, to_mixed)
    run += len(ranked)
    room = MOST_KEPT * sum(multiplications.values()) - sum(multiplications[key] for key in forced)
    largest = _affordable(ranked, room)

    def nodes(effects: Sequence[Effect]) -> frozenset[str]:
        return with_moves(graph, set(forced).union(*(effect.unit.nodes for effect in effects)))

    def meets(effects: Sequence[Effect]) -> bool:
        nonlocal run
        run += 1
        return not trials.compare_all(to_mixed(graph, nodes(effects)), goal, whole=False)[-1].breaches

    low, high = 0, largest  # the goal is missed with `low` units
    met = meets(ranked[:largest])
    if met:
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if meets(ranked[:middle]) else (middle, high)
    kept = list(ranked[:high])
    if met:
        for effect in kept[-2::-1][:MOST_RETURNED]:  # without the last one it was already missed
            fewer = [other for other in kept if other is not effect]
            if meets(fewer):
                kept = fewer
    after = trials.compare_all(to_mixed(graph, nodes(kept)), goal)
    return Found(tuple(kept), nodes(kept), tuple(before), tuple(after), met, run + 1)


def rank(
    graph: Graph,
    units: Sequence[Unit],
    forced: Set[str],
    trials: Trials,
    images: Sequence[Golden],
    to_mixed: Callable[[Graph, Set[str]], onnx.ModelProto] = to_mixed,
) -> list[Effect]:
    """The effect of each unit that is not forced wholly, the strongest first."""
    everything = frozenset(graph.typed)
    effects = []
    for unit in units:
        halved = set(unit.nodes) - forced
        if halved:
            errors = [
                near_threshold(image.logits, logits, trials.contract, trials.scale)
                for image, logits in trials.logits(to_mixed(graph, everything - halved), images)
            ]
            effects.append(Effect(unit, float(np.sqrt(np.mean(np.square(errors))))))
    return sorted(effects, key=lambda effect: -effect.error)


def near_threshold(reference: FloatArray, logits: FloatArray, contract: Contract, scale: float) -> float:
    """Root mean square of the error in standard deviations, where the reference is within one of
    another decision; over the whole image where it is nowhere so near."""
    error = (logits.astype(np.float64) - reference) / scale
    near = np.abs(distances(reference, contract)) < scale
    return float(np.sqrt(np.mean(np.square(error[near] if near.any() else error))))


def units_of(graph: Graph, multiplications: dict[str, int]) -> list[Unit]:
    """The typed nodes, each with the weighted layer that feeds it; nodes that only move values left out.
    Layers of the same weights are one: a mirrored network runs each twice."""
    root: dict[str, str] = {}
    first: dict[tuple[str, ...], str] = {}
    for key in graph.typed:
        node = graph.nodes[key]
        if node.op_type in WITH_WEIGHTS:
            weights = tuple(name for name in node.input if name in graph.weights)
            root[key] = first.setdefault(weights or (key,), key)
        else:
            producers = [graph.producer[name] for name in node.input if name in graph.producer]
            root[key] = next((root[one] for one in producers if one in root), key)
    members: dict[str, list[str]] = {}
    for key, head in root.items():
        if not moves(graph, key):
            members.setdefault(head, []).append(key)
    return [
        Unit(graph.layer(head), tuple(nodes), sum(multiplications[key] for key in nodes))
        for head, nodes in members.items()
    ]


def moves(graph: Graph, key: str) -> bool:
    """True for a node that gives values as it got them."""
    node = graph.nodes[key]
    if node.op_type == "Resize":
        mode = next((attribute.s for attribute in node.attribute if attribute.name == "mode"), b"nearest")
        return bool(mode == b"nearest")
    return node.op_type in MOVES


def with_moves(graph: Graph, keep: Set[str]) -> frozenset[str]:
    """`keep` and the moving nodes between two kept ones: nothing is rounded on the way."""
    moving = [key for key in graph.typed if moves(graph, key)]
    fed, wanted = set(keep), set(keep)
    for key in moving:  # the graph's order is from the image to the logits
        if any(graph.producer.get(name) in fed for name in graph.nodes[key].input):
            fed.add(key)
    for key in reversed(moving):
        readers = [reader for name in graph.nodes[key].output for reader in graph.consumers.get(name, ())]
        if any(reader in wanted for reader in readers):
            wanted.add(key)
    return frozenset(keep) | (fed & wanted)


def _affordable(ranked: Sequence[Effect], room: float) -> int:
    """How many of the first units together need at most `room` multiplications."""
    total = 0
    for count, effect in enumerate(ranked):
        total += effect.unit.multiplications
        if total > room:
            return count
    return len(ranked)


def _worst_first(images: Sequence[ImageParity]) -> list[ImageParity]:
    return sorted(images, key=lambda i: (-len(i.breaches), -i.flipped, -i.max_error))
