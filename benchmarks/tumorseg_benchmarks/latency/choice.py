"""Which artefact shall serve, and why each other shall not: parity first, then budgets, then speed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from tumorseg_benchmarks.latency.cold_start import ColdStart
from tumorseg_benchmarks.latency.intervals import FASTER
from tumorseg_benchmarks.latency.latency import speed_up
from tumorseg_benchmarks.latency.rows import BenchRow
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import InputError

WON, LOST, UNFIT = "won", "lost", "unfit"
BATCH = 1  # images per inference: a device judges them as they come


@dataclasses.dataclass(frozen=True)
class Budgets:
    """What an artefact may take at most; None: anything.

    latency_ms: median of infer for one image. memory_mb: peak resident memory of a process of its own, with a
    GPU also the GPU's memory. size_mb: of its files.
    """

    latency_ms: float | None = None
    memory_mb: float | None = None
    size_mb: float | None = None

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"the budget {name} is {value}, expected a positive number")


@dataclasses.dataclass(frozen=True)
class Choice:
    """status: 'won', 'lost' (fit, and slower) or 'unfit'. reason: why, in one line. size_mb: of its files,
    None for an engine of this device."""

    name: str
    label: str
    status: str
    reason: str
    size_mb: float | None


def size_mb(bundle: Bundle, row: BenchRow) -> float | None:
    """Of the files of the row's artefact; None where it is not in the bundle."""
    for artefact in bundle.artefacts:
        if artefact.format in row.variant.formats and artefact.precision == row.variant.precision:
            return sum(bundle.files[file].bytes for file in artefact.files) / 1e6
    return None


def choose(
    rows: Sequence[BenchRow], bundle: Bundle, cold_start: Mapping[str, ColdStart], budgets: Budgets
) -> list[Choice]:
    """The artefacts at batch 1, the winner first.

    rows: of one thread count. Among those that fit, the one with the lowest median wins; PyTorch, peers and
    controls do not compete. cold: memory by the variant's name.
    """
    artefacts = [
        row for row in rows if row.batch == BATCH and row.role != "control" and not row.variant.needs_run
    ]
    unfit = {row.variant.name: why_unfit(row, bundle, cold_start, budgets) for row in artefacts}
    fit = [row for row in artefacts if not unfit[row.variant.name]]
    fit.sort(key=lambda row: row.stages["infer"].median)
    choices = [
        Choice(
            row.variant.name,
            row.label,
            WON if row is fit[0] else LOST,
            _why_won(row, budgets) if row is fit[0] else _why_lost(row, fit[0]),
            size_mb(bundle, row),
        )
        for row in fit
    ]
    return choices + [
        Choice(row.variant.name, row.label, UNFIT, unfit[row.variant.name], size_mb(bundle, row))
        for row in artefacts
        if row not in fit
    ]


def why_unfit(row: BenchRow, bundle: Bundle, cold_start: Mapping[str, ColdStart], budgets: Budgets) -> str:
    """Why it may not serve, empty where it may; a budget whose figure is not known is not kept."""
    if row.status != "measured":
        return f"{row.status}: {row.reason}"
    found = cold_start.get(row.variant.name)
    memory = None if found is None else max(found.peak_mb, found.gpu_mb or 0)
    reasons = []
    for name, value, limit, unit in (
        ("latency", row.stages["infer"].median, budgets.latency_ms, "ms"),
        ("peak memory", memory, budgets.memory_mb, "MB"),
        ("size", size_mb(bundle, row), budgets.size_mb, "MB"),
    ):
        if limit is not None and value is None:
            reasons.append(f"{name} is not known, expected at most {limit:g} {unit}")
        elif limit is not None and value is not None and value > limit:
            reasons.append(f"{name} {value:.4g} {unit}, expected at most {limit:g}")
    return "; ".join(reasons)


def _why_won(row: BenchRow, budgets: Budgets) -> str:
    asked = [
        f"{name.rpartition('_')[0]} {limit:g}"
        for name, limit in dataclasses.asdict(budgets).items()
        if limit is not None
    ]
    within = f" within the budgets ({', '.join(asked)})" if asked else ""
    return f"the lowest median of those that pass parity{within}: {row.stages['infer'].median:.4g} ms"


def _why_lost(row: BenchRow, winner: BenchRow) -> str:
    """By the pairs where both were timed in the same rounds, else by the medians."""
    median = row.stages["infer"].median
    if row.variant.group != winner.variant.group or row.rounds != winner.rounds:
        return f"{median / winner.stages['infer'].median:.3g} times as long as {winner.label}"
    gain = speed_up(row.samples, winner.samples)
    interval = f"{gain.median:.3f} times ({gain.low:.3f}-{gain.high:.3f})"
    if gain.verdict != FASTER:
        return f"no difference from {winner.label} was found ({interval} as long); its median is higher"
    return f"{interval} as long as {winner.label}"
