"""From the rows of a benchmark to the ranking that `backend="auto"` follows.

An entry is what was compared with PyTorch on this very device at batch 1. Who passed and was timed has its
median; who broke parity is listed as breached, without a time, so that no speed can make it win.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tumorseg_benchmarks.bench import BenchRow
from tumorseg_benchmarks.subjects import BUILT, PYTORCH
from tumorseg_runtime.atomic import make_folder
from tumorseg_runtime.bundle import Bundle
from tumorseg_runtime.device_folder import PASSED, Entry, beside, find

BATCH = 1  # images per inference: a device judges them as they come
BREACHED = "breached"


def make_ranking_folder(bundle: Bundle, device_folder: Path | None) -> Path:
    """The folder for the ranking, made now and not after minutes of timing; raises InputError."""
    folder = device_folder or find(bundle) or beside(bundle)
    make_folder(folder)
    return folder


def ranking_entries(rows: Sequence[BenchRow], threads: int) -> tuple[Entry, ...]:
    """Entries of all rows at batch 1 whose parity was checked, PyTorch and the A/A control apart.

    An engine that was built on this device hides the bundle's own, since it is the one that is opened.
    """
    compared = [
        row
        for row in rows
        if row.batch == BATCH and row.parity is not None and row.role != "control"
        if row.subject.engine != PYTORCH
    ]
    compared.sort(key=lambda row: row.subject.format == BUILT)
    entries = {
        (row.subject.engine, row.subject.device, row.subject.precision): _entry(row, threads)
        for row in compared
    }
    return tuple(entries.values())


def _entry(row: BenchRow, threads: int) -> Entry:
    subject, infer = row.subject, row.stages.get("infer")
    assert row.parity is not None  # ranking_entries looked
    detail = row.reason
    if infer is not None:
        detail = f"{infer.p25:.1f} to {infer.p75:.1f} ms, quartiles of {infer.samples} rounds"
        if subject.group == "cpu":
            detail += f", {threads} threads"
    return Entry(
        backend=subject.engine,
        device=subject.device,
        precision=subject.precision,
        batch=row.batch,
        versions=row.versions,
        parity=PASSED if row.parity.passed else BREACHED,
        median_s=infer.median / 1000 if infer is not None and row.parity.passed else None,
        detail=detail,
    )


def ranking_line(entries: Sequence[Entry]) -> str:
    """For people: those that may serve, the fastest first, and how many may not."""
    timed = [(entry.median_s, entry) for entry in entries if entry.median_s is not None]
    timed.sort(key=lambda pair: pair[0])
    names = [f"{e.backend} {e.device} {e.precision} {median * 1000:.1f} ms" for median, e in timed]
    others = len(entries) - len(timed)
    return (", ".join(names) or "nothing may serve") + (f"; {others} not fit to serve" if others else "")
