"""From the rows of a benchmark to the ranking that `backend="auto"` follows.

An entry is what was compared with PyTorch on this very device at batch 1. Who passed and was timed has its
median; who broke parity is listed as refused, without a time, so that no speed can make it win.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tumorseg_benchmarks.latency.choice import BATCH, fastest_first
from tumorseg_benchmarks.latency.rows import BenchRow
from tumorseg_benchmarks.variants.variants import BUILT
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.files import make_folder
from tumorseg_runtime.device.cache import PASSED, Entry, beside, find

REFUSED = "refused"


def make_ranking_folder(bundle: Bundle, device_folder: Path | None) -> Path:
    """The folder for the ranking, made now and not after minutes of timing; raises InputError."""
    folder = device_folder or find(bundle) or beside(bundle)
    make_folder(folder)
    return folder


def ranking_entries(
    rows: Sequence[BenchRow], threads: int, unfit: Mapping[str, str] | None = None
) -> tuple[Entry, ...]:
    """Entries of all rows at batch 1 whose parity was checked, in the order in which `auto` shall try them.

    PyTorch, third-party baselines and the A/A control are left out.

    unfit: why a variant of this name breaks a budget; it is listed without a time, so that it cannot win.
    An engine that was built on this device hides the bundle's own, since it is the one that is opened.
    """
    compared = [
        row
        for row in rows
        if row.batch == BATCH and row.parity is not None and row.role != "control"
        if not row.variant.needs_run
    ]
    compared.sort(key=lambda row: row.variant.format == BUILT)
    kept = {(row.variant.engine, row.variant.device, row.variant.precision): row for row in compared}.values()
    entries = {id(row): _entry(row, threads, (unfit or {}).get(row.variant.name, "")) for row in kept}
    serving = [row for row in kept if entries[id(row)].median_s is not None]
    others = [row for row in kept if row not in serving]
    return tuple(entries[id(row)] for row in (*fastest_first(serving), *others))


def _entry(row: BenchRow, threads: int, unfit: str) -> Entry:
    variant, infer = row.variant, row.stages.get("infer")
    assert row.parity is not None  # ranking_entries looked
    detail = row.reason
    if infer is not None:
        detail = f"{infer.p25:.1f} to {infer.p75:.1f} ms, quartiles of {infer.samples} rounds"
        if variant.group == "cpu":
            detail += f", {threads} threads"
    if unfit:
        detail = f"over budget: {unfit}" if infer is not None else unfit
    return Entry(
        backend=variant.engine,
        device=variant.device,
        precision=variant.precision,
        batch=row.batch,
        versions=row.versions,
        parity=PASSED if row.parity.passed else REFUSED,
        median_s=infer.median / 1000 if infer is not None and row.parity.passed and not unfit else None,
        detail=detail,
    )


def ranking_line(entries: Sequence[Entry]) -> str:
    """For people: those that may serve, in their order, and how many may not."""
    timed = [(entry.median_s, entry) for entry in entries if entry.median_s is not None]
    names = [f"{e.backend} {e.device} {e.precision} {median * 1000:.1f} ms" for median, e in timed]
    others = len(entries) - len(timed)
    return (", ".join(names) or "nothing may serve") + (f"; {others} not fit to serve" if others else "")
