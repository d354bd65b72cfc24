"""Tables that text, Markdown and the page share, from the values of bench.json: choice, start, roofline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tumorseg_benchmarks.latency.roofline import Bound, Peak, Work, share_text
from tumorseg_train.report.tables import Table, number

BUDGETS = {
    "latency_ms": "latency at most {:g} ms", "memory_mb": "peak memory at most {:g} MB",
    "size_mb": "size at most {:g} MB",
}  # fmt: skip
COLD = ("start_ms", "load_ms", "first_ms", "later_ms", "peak_mb", "gpu_mb")


def labels(bench: Mapping[str, Any]) -> dict[str, str]:
    """Labels by the variant's name."""
    return {row["variant"]["name"]: row["label"] for row in bench["rows"] if row["role"] != "control"}


def choice_line(bench: Mapping[str, Any]) -> str:
    """By what the choice was made."""
    budgets = {name: limit for name, limit in bench["budgets"].items() if limit is not None}
    asked = "; ".join(BUDGETS[name].format(limit) for name, limit in budgets.items()) or "none"
    return f"Parity first, then budgets ({asked}), then the lowest median for one image."


def choice_table(bench: Mapping[str, Any]) -> Table:
    """Who shall serve, and why each other shall not."""
    header = ("artefact", "verdict", "MB>", "why")
    return Table(
        header,
        tuple(
            (one["label"], one["status"], number(one["size_mb"]), one["reason"]) for one in bench["choice"]
        ),
    )


def cold_table(bench: Mapping[str, Any]) -> Table:
    """Figures of processes of their own."""
    header = (
        "variant", "start to first logits ms>", "load ms>", "first inference ms>", "third ms>",
        "peak RSS MB>", "GPU MB>",
    )  # fmt: skip
    names = labels(bench)
    return Table(
        header,
        tuple(
            (names[name], *(number(one[key]) for key in COLD)) for name, one in bench["cold_start"].items()
        ),
    )


def bound_rows(bench: Mapping[str, Any], peak: Peak) -> list[tuple[Mapping[str, Any], Bound, float]]:
    """Each variant of the peak's device at the smallest batch: its row, its bound, its share of it. On a CPU
    with the peak's threads; on a GPU in the peak's precision, of what its own clock says where it does."""
    work, batch = Work(**bench["work"]), min(bench["plan"]["batches"])
    return [
        (row, bound, bound.share(timed_ms(row)))
        for row in bench["rows"]
        if row["status"] == "measured" and row["batch"] == batch and row["role"] != "control"
        if _reaches_for(peak, row)
        for bound in [Bound.of(work, peak, batch)]
    ]


def timed_ms(row: Mapping[str, Any]) -> float:
    """Median of 'compute' where a GPU's clock gave it, else of 'infer'."""
    stages = row["stages"]
    return float(stages["compute" if "compute" in stages else "infer"]["median"])


def _reaches_for(peak: Peak, row: Mapping[str, Any]) -> bool:
    variant = row["variant"]
    if peak.device == "cpu":
        return (variant["device"], row["threads"]) == ("cpu", peak.threads)
    return variant["device"] != "cpu" and bool(variant["precision"] == peak.precision)


def roofline_table(bench: Mapping[str, Any], peak: Peak) -> Table:
    """Each variant's share of the direct-convolution bound."""
    header = ("variant", "ms>", "bound ms>", "bound by", "share of the bound>")
    return Table(
        header,
        tuple(
            (
                row["label"],
                number(timed_ms(row)),
                number(bound.ms),
                bound.by,
                share_text(share),
            )
            for row, bound, share in bound_rows(bench, peak)
        ),
    )


def peak_line(peak: Peak) -> str:
    """What the machine reached."""
    who = f"Threads {peak.threads}" if peak.device == "cpu" else f"GPU, {peak.precision}"
    return (
        f"{who}: {peak.flops / 1e9:.1f} GFLOP/s ({peak.best}), "
        f"{peak.bandwidth / 1e9:.1f} GB/s (copy, read and written)."
    )


def error_cell(errors: Sequence[float | None], passed: bool) -> str:
    """The largest error of the logits; '-' for a deploy form, which gives masks alone and passes without one.

    None is how JSON holds an error that is not finite.
    """
    finite = [error for error in errors if error is not None and math.isfinite(error)]
    if not finite or len(finite) < len(errors):
        return "-" if passed else "not finite"
    return f"{max(finite):.2g}"
