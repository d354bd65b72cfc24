"""Target `onnx-fp16`: the network in FP16 behind FP32 input and output, apart from layers that need FP32.

Conv and BatchNorm are folded in FP32 first (`tumorseg_export.onnx.fuse`). Then every layer is halved except
those

- that FP16 cannot hold on the calibration images (`tumorseg_export.precision.fp16_ranges`): an infinity may
  vanish in the next layer and leave finite garbage;
- whose halving moves the masks too far (`tumorseg_export.precision.search`).

Each kept layer is named with its reason in the bundle. docs/fp16.md argues the criteria.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumorseg_export.checkpoint.context import ExportContext, ExportResult
from tumorseg_export.onnx.complexity import multiplications
from tumorseg_export.onnx.export import to_onnx, tool_versions, write_onnx
from tumorseg_export.onnx.fuse import fuse
from tumorseg_export.precision.fp16_graph import Graph, to_mixed
from tumorseg_export.precision.fp16_ranges import HEADROOM, LARGEST, Extreme, Ranges, measure
from tumorseg_export.precision.search import MOST_KEPT, Found, goal_of, search, with_moves
from tumorseg_export.precision.trial import Trials
from tumorseg_runtime.bundle.bundle import Artefact
from tumorseg_runtime.core.errors import CheckFailedError
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.compare import ImageParity

if TYPE_CHECKING:
    import onnx
    import torch

FILE = "model.fp16.onnx"
# Folding rounds otherwise, in all pixels alike where a network subtracts large numbers.
FOLDING = dataclasses.replace(BUDGETS["fp32"], mean_error=2.5e-4)


def make(context: ExportContext, folder: Path) -> ExportResult:
    """Write `model.fp16.onnx`; raises CheckFailedError where FP16 does not do for the network."""
    graph = Graph(fused_graph(context.model, context))
    model, facts = to_fp16(graph, context, folder)
    write_onnx(model, folder / FILE, context, precision="fp16")
    return ExportResult(Artefact(FILE, "onnx", "fp16", None, tool_versions(), ()), {"fp16": facts})


def to_fp16(graph: Graph, context: ExportContext, folder: Path) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The graph in mixed precision, and the facts for the bundle. `folder` holds files for a moment."""
    images = (*context.golden, *context.calibration)
    trials = Trials.over(images, context.contract, folder)
    ranges, _ = measure(graph, images, trials)
    refuse_other_folding(trials.compare_all(graph.model, FOLDING), FILE, "onnx-fp16")
    counts = multiplications(graph.model)
    too_large = ranges.too_large(graph)
    forced = with_moves(graph, too_large.keys())
    _check_share(forced, too_large, counts)
    found = search(graph, forced, counts, trials, goal_of(BUDGETS["fp16"]))
    mixed = to_mixed(graph, found.nodes)
    if not found.met:
        for result in trials.compare_all(mixed, BUDGETS["fp16"]):
            if result.breaches:
                raise CheckFailedError(
                    f"{FILE}: decides other than PyTorch on {result.image} ({'; '.join(result.breaches)}) "
                    f"with {_names(found)} in FP32, and no more than {MOST_KEPT:.0%} of the multiplications "
                    "may be: leave out the target onnx-fp16"
                )
    return mixed, _facts(graph, ranges, too_large, found, counts, trials)


def refuse_other_folding(results: Sequence[ImageParity], file: str, target: str) -> None:
    """Raise CheckFailedError where the folded graph, of which the file is made, decides otherwise."""
    for result in results:
        if result.breaches:
            raise CheckFailedError(
                f"{file}: folding BatchNorm changed the network on {result.image} "
                f"({'; '.join(result.breaches)}): leave out the target {target}"
            )


def fused_graph(model: torch.nn.Module, context: ExportContext) -> onnx.ModelProto:
    """The network's graph with BatchNorm folded in FP32."""
    return to_onnx(fuse(model, context.contract.channels), context.contract)


def _check_share(forced: frozenset[str], too_large: dict[str, Extreme], counts: dict[str, int]) -> None:
    share = sum(counts[key] for key in forced) / sum(counts.values())
    if share > MOST_KEPT:
        worst = max(too_large.values(), key=lambda extreme: extreme.value)
        raise CheckFailedError(
            f"{FILE}: layer {worst.layer} reaches {worst.value:.4g} ({worst.image}), FP16 ends at "
            f"{LARGEST:g}, and the layers that cannot be halved do {share:.0%} of the products, expected "
            f"at most {MOST_KEPT:.0%}: leave out the target onnx-fp16"
        )


def _facts(
    graph: Graph,
    ranges: Ranges,
    too_large: dict[str, Extreme],
    found: Found,
    counts: dict[str, int],
    trials: Trials,
) -> dict[str, Any]:
    """What the bundle says about the file; figures are rounded so that they repeat."""
    kept: list[dict[str, Any]] = [
        {"layer": one.layer, "reason": "range", "image": one.image, "value": rounded(one.value)}
        for one in too_large.values()
    ]
    kept += [
        {"layer": effect.unit.layer, "reason": "effect", "error": rounded(effect.error)}
        for effect in found.kept
    ]
    return {
        "limit": LARGEST,
        "headroom": HEADROOM,
        "images": len(trials.images),
        "largest_weight": _as_fact(_largest(ranges.weights.values())),
        "largest_activation": _as_fact(_largest(ranges.values.values())),
        "largest_partial_sum": _as_fact(_largest(ranges.sums.values())),
        "largest_share_of_subnormals": _as_fact(ranges.small),
        "kept": kept,
        "kept_multiplications": rounded(sum(counts[key] for key in found.nodes) / sum(counts.values())),
        "goal": dataclasses.asdict(goal_of(BUDGETS["fp16"])),
        "goal_met": found.met,
        "trials": found.trials,
        "before": worst_of(found.before),
        "after": worst_of(found.after),
    }


def describe(facts: dict[str, Any]) -> Iterator[str]:
    """Lines of the model card about the facts that `make` gave under `fp16`."""
    kept = facts["kept"]
    after = facts["after"]
    yield (
        f"`{FILE}` is FP16 apart from {len(kept)} layers that stay in FP32 "
        f"({facts['kept_multiplications']:.1%} of the multiplications). On {facts['images']} calibration "
        f"images it flips at most {after['flipped']} pixels of one, with a Dice >= {after['dice']:.4f} to "
        f"PyTorch's mask; its largest activation is {facts['largest_activation']['value']:.4g} "
        f"({facts['largest_activation']['layer']}), FP16 ends at {facts['limit']:g}."
    )
    if kept:
        yield ""
        yield "| in FP32 | because |"
        yield "|---|---|"
    for one in kept:
        if one["reason"] == "range":
            reason = f"it reaches {one['value']:.4g} ({one['image']}); FP16 ends at {facts['limit']:g}"
        else:
            reason = (
                f"alone in FP16 it moves logits near the threshold by {one['error']:.2g} standard deviations"
            )
        yield f"| {one['layer']} | {reason} |"


def worst_of(images: Sequence[ImageParity]) -> dict[str, Any]:
    """The worst figure of any image, each by itself; rounded."""
    return {
        "flipped": max(image.flipped for image in images),
        "flipped_in_all": sum(image.flipped for image in images),
        "dice": rounded(min(image.dice for image in images), 6),
        "relative_error": rounded(max(image.relative_error for image in images)),
    }


def _largest(extremes: Any) -> Extreme:
    return max(extremes, key=lambda extreme: extreme.value, default=Extreme("", "", 0.0))


def _as_fact(extreme: Extreme) -> dict[str, Any]:
    return {**dataclasses.asdict(extreme), "value": rounded(extreme.value)}


def rounded(value: float, digits: int = 4) -> float:
    """A figure of so many digits, so that it repeats."""
    return float(f"{value:.{digits}g}")


def _names(found: Found) -> str:
    return ", ".join(effect.unit.layer for effect in found.kept) or "no layer"
