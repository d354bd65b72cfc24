"""Target `onnx-int8`: the network with its convolutions in INT8, apart from layers that need floating point.

One file with QuantizeLinear and DequantizeLinear, which ONNX Runtime and OpenVINO read
(`tumorseg_export.precision.int8_graph`). It is made with the calibration images alone: the way of choosing
ranges that errs least near the threshold, and the search of FP16 (`tumorseg_export.precision.search`) for the
layers that stay. Other images judge it (`tumorseg_export.targets.int8_acceptance`).
docs/int8.md argues the criteria.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tumorseg_export.checkpoint.context import ExportContext, ExportResult
from tumorseg_export.onnx.complexity import multiplications
from tumorseg_export.onnx.export import tool_versions, write_onnx
from tumorseg_export.precision.fp16_graph import Graph
from tumorseg_export.precision.int8_graph import Calibrated, integer_nodes, to_int8
from tumorseg_export.precision.int8_ranges import KINDS, calibrate, observe
from tumorseg_export.precision.int8_spared import ENOUGH, spared
from tumorseg_export.precision.search import (
    MOST_KEPT,
    RANKED_ON,
    Found,
    goal_of,
    near_threshold,
    rank,
    search,
    units_of,
)
from tumorseg_export.precision.trial import Trials
from tumorseg_export.targets.onnx_fp16 import FOLDING, fused_graph, refuse_other_folding, rounded, worst_of
from tumorseg_runtime.bundle.bundle import Artefact
from tumorseg_runtime.core.errors import CheckFailedError, InputError
from tumorseg_runtime.parity.budget import BUDGETS

FILE = "model.int8.onnx"


def make(context: ExportContext, folder: Path) -> ExportResult:
    """Write `model.int8.onnx`; raises CheckFailedError where INT8 does not do for the network, InputError
    without calibration images."""
    graph = Graph(fused_graph(context.model, context))
    model, facts = quantise(graph, context, folder)
    write_onnx(model, folder / FILE, context, precision="int8")
    return ExportResult(Artefact(FILE, "onnx", "int8", None, tool_versions(), ()), {"int8": facts})


def quantise(graph: Graph, context: ExportContext, folder: Path) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The graph in INT8, and the facts for the bundle. `folder` holds files for a moment."""
    if not context.calibration:
        raise InputError("onnx-int8 has no calibration images, expected some: give --calibration 8 or more")
    trials = Trials.over(context.calibration, context.contract, folder)
    refuse_other_folding(trials.compare_all(graph.model, FOLDING), FILE, "onnx-int8")
    counts = multiplications(graph.model)
    able = set(integer_nodes(graph))
    if not any(counts[key] for key in able):
        raise CheckFailedError(
            f"{FILE}: no convolution of the network can be rounded, expected some: leave out the target "
            "onnx-int8"
        )
    seen = observe(graph, context.calibration, trials)
    ways = {kind: calibrate(graph, seen, kind) for kind in KINDS}
    errors = {kind: _error(graph, way, trials) for kind, way in ways.items()}
    kind = min(errors, key=lambda one: errors[one])

    def mixed(source: Graph, keep: Set[str]) -> onnx.ModelProto:
        return to_int8(source, keep, ways[kind])

    goal = goal_of(BUDGETS["int8"])
    forced = frozenset(key for key in graph.typed if key not in able)
    cheap = []
    if errors[kind] > ENOUGH:
        effects = rank(graph, units_of(graph, counts), forced, trials, trials.images[:RANKED_ON], mixed)
        cheap = spared(effects, errors[kind], sum(counts.values()))
        forced |= {key for effect in cheap for key in effect.unit.nodes}
    found = search(graph, forced, counts, trials, goal, to_mixed=mixed)
    if not found.met:
        for result in trials.compare_all(mixed(graph, found.nodes), BUDGETS["int8"]):
            if result.breaches:
                raise CheckFailedError(
                    f"{FILE}: decides other than PyTorch on {result.image} ({'; '.join(result.breaches)}) "
                    f"with {len(cheap) + len(found.kept)} layers in floating point, and no more than "
                    f"{MOST_KEPT:.0%} of the multiplications may be: leave out the target onnx-int8"
                )
    share = sum(counts[key] for key in integer_nodes(graph, found.nodes)) / sum(counts.values())
    facts = {
        "images": len(trials.images),
        "ranges": kind,
        "errors": {one: rounded(error) for one, error in errors.items()},
        "kept": [{"layer": one.unit.layer, "error": rounded(one.error)} for one in (*cheap, *found.kept)],
        "multiplications": rounded(share),
        "goal_met": found.met,
        **_figures(found),
    }
    return mixed(graph, found.nodes), facts


def _error(graph: Graph, way: Calibrated, trials: Trials) -> float:
    """Root mean square over the images of the logit error near the threshold, all in INT8."""
    errors = [
        near_threshold(image.logits, logits, trials.contract, trials.scale)
        for image, logits in trials.logits(to_int8(graph, frozenset(), way), trials.images)
    ]
    return float(np.sqrt(np.mean(np.square(errors))))


def _figures(found: Found) -> dict[str, Any]:
    return {"trials": found.trials, "before": worst_of(found.before), "after": worst_of(found.after)}


def describe(facts: dict[str, Any]) -> Iterator[str]:
    """Lines of the model card about the facts that `make` gave under `int8`."""
    kept = facts["kept"]
    after = facts["after"]
    yield (
        f"`{FILE}` does {facts['multiplications']:.1%} of the multiplications in INT8, ranges by "
        f"{facts['ranges']} over {facts['images']} calibration images; on these it flips at most "
        f"{after['flipped']} pixels of one, with a Dice >= {after['dice']:.4f} to PyTorch's mask. "
        f"{len(kept)} layers stay in FP32 for what they do to masks. Its certificate has the judgement on "
        "other images and the time against FP32."
    )
    if kept:
        yield ""
        yield "| in FP32 | alone in INT8 it moves logits near the threshold by (standard deviations) |"
        yield "|---|---|"
    for one in kept:
        yield f"| {one['layer']} | {one['error']:.2g} |"
