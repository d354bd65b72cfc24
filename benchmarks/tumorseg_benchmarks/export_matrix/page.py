"""The page of the export matrix: a table of architectures and encoders, what is refused, what failed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tumorseg_benchmarks.export_matrix.cases import ENCODERS, whole
from tumorseg_benchmarks.export_matrix.checks import CHECKS, FAILED, NOT_MADE, PASSED, REFUSED, TOOLS
from tumorseg_train.networks.models import ARCHITECTURES
from tumorseg_train.report.tables import Table

REFUSAL = re.compile(r"^.* cannot be built on encoder '[^']*' \((.*)\): choose an encoder .*$", re.DOTALL)
INTRODUCTION = """\
# Export matrix

`python -m tumorseg_benchmarks.export_matrix` writes this page. Each network has random weights, stirred
statistics of its norms, and a small input (64x96, PAN 128x160); each pair of architecture and encoder stands
for four cases, gray or RGB with one or three classes. A case passes where its weights alone say what it is
([checkpoints.md](checkpoints.md)), its graph passes `onnx.checker` and Polygraphy's lint, and the logits are
PyTorch's, in float32 or float64, in ONNX Runtime without and with optimisation, in OpenVINO, and, for one
of the four, in ONNX's reference evaluator (at most 5e-4 of their standard deviation apart)."""


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """Markdown, of the cases' records."""
    counts = Counter(record["status"] for record in records)
    found = [(name, fault) for record in records for name, fault in record["checks"].items()]
    passed = Counter(name for name, fault in found if not fault)
    minutes = sum(record["seconds"] for record in records) / 60
    summary = (
        f"{len(records)} of {len(whole())} cases were run: {counts[PASSED]} passed, {counts[REFUSED]} "
        f"refused, {counts[FAILED]} failed, in {minutes:.0f} minutes of one process."
    )
    parts = [
        INTRODUCTION,
        summary,
        _grid(records).to_markdown(),
        "Checks that passed: " + ", ".join(f"{name} {passed[name]}" for name in CHECKS) + ".",
        *sorted({f"{name}: {fault}." for name, fault in found if fault.startswith(NOT_MADE)}),
        "Versions: " + ", ".join(f"{name} {_version(name)}" for name in TOOLS) + ".",
    ]
    for title, status in (("Refused", REFUSED), ("Failed", FAILED)):
        if rows := _reasons(records, status):
            parts += [f"## {title}", Table(("encoder", "architectures", "reason"), rows).to_markdown()]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _grid(records: Sequence[Mapping[str, Any]]) -> Table:
    cells = {}
    for architecture in ARCHITECTURES:
        for encoder in ENCODERS:
            found = Counter(
                record["status"]
                for record in records
                if (record["case"]["architecture"], record["case"]["encoder"]) == (architecture, encoder)
            )
            cells[architecture, encoder] = (
                ", ".join(f"{found[status]} {status}" for status in found) or "not run"
            )
    rows = tuple((name, *(cells[name, encoder] for encoder in ENCODERS)) for name in ARCHITECTURES)
    return Table(("", *(f"{encoder} ({family})" for encoder, family in ENCODERS.items())), rows)


def _reasons(records: Sequence[Mapping[str, Any]], status: str) -> tuple[tuple[str, str, str], ...]:
    """One row for all cases of an encoder that have one reason; of smp's refusals only what smp says."""
    architectures: dict[tuple[str, str], dict[str, None]] = {}
    for record in records:
        if record["status"] == status:
            case, reason = record["case"], REFUSAL.sub(r"\1", record["reason"])
            architectures.setdefault((case["encoder"], reason), {})[case["architecture"]] = None
    return tuple((encoder, ", ".join(names), reason) for (encoder, reason), names in architectures.items())
