"""What a benchmark or a parity check leaves: JSON for machines, Markdown and a table for people.

The JSON files are described in docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumorseg_benchmarks.parity.rows import ParityRow
from tumorseg_benchmarks.reports.figure import Figure
from tumorseg_benchmarks.reports.summaries import error_cell
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.files import make_folder, write_text
from tumorseg_train.report.tables import Table, json_text

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

SCHEMA = 2
BUSY = 0.5  # load average before the start from which on a reader is warned


def variant_facts(bundle: Bundle, run: Run | None) -> dict[str, Any]:
    """Which bundle and run the figures belong to; `run` is None where none was given."""
    contract = bundle.contract
    facts: dict[str, Any] = {
        "bundle": {
            "name": bundle.name,
            "path": str(bundle.root),
            "sha256": bundle.digest(),
            "height": contract.height,
            "width": contract.width,
            "model": bundle.model,
        },
        "run": None,
    }
    if run is not None:
        facts["run"] = {
            "path": str(run.root),
            "architecture": run.architecture,
            "encoder": run.encoder,
            "checkpoint_sha256": run.checkpoint_sha256,
            "split_sha256": run.data["split_sha256"],
        }
    return facts


def write_report(out: Path, name: str, values: dict[str, Any], markdown: str) -> None:
    """Write `<name>.json` and `<name>.md` into `out`, each whole or not at all."""
    make_folder(out)
    write_text(out / f"{name}.json", to_json(values))
    write_text(out / f"{name}.md", markdown)


def to_json(values: dict[str, Any]) -> str:
    """JSON text. JSON has no infinity and no NaN: such figures become null, and their breach says what they
    were."""
    return json_text(values)


def parity_table(rows: Sequence[ParityRow]) -> Table:
    """One row per variant and set of images; figures are of the worst image."""
    header = (
        "variant", "images", "batch>", "verdict", "logit error>", "in std>", "flipped px>", "Dice>",
        "worst image or reason",
    )  # fmt: skip
    return Table(header, tuple(_parity_cells(row) for row in rows))


def _parity_cells(row: ParityRow) -> tuple[str, ...]:
    batch = "-" if row.batch is None else str(row.batch)
    if row.report is None:
        return (row.variant.label, row.images, batch, row.status, "-", "-", "-", "-", row.reason)
    images = row.report.images
    return (
        row.variant.label,
        f"{len(images)} {row.images}",
        batch,
        row.status,
        error_cell([image.max_error for image in images], row.report.passed),
        error_cell([image.relative_error for image in images], row.report.passed),
        f"{max(image.flipped for image in images)}",
        f"{min(image.dice for image in images):.4f}",
        row.reason if row.status == "unverified" else row.report.worst.image,
    )


def preprocessing_line(rows: Sequence[ParityRow]) -> str:
    """How many images' tensors were compared bit by bit, and how many of them differ."""
    by_image = {
        (row.images, image.image): image.tensor_differs
        for row in rows
        if row.report
        for image in row.report.images
        if image.tensor_differs is not None
    }
    wrong = sum(differs > 0 for differs in by_image.values())
    verdict = "all identical bit by bit" if not wrong else f"{wrong} of them differ"
    return f"Preprocessing: tensors of {len(by_image)} images compared with PyTorch's: {verdict}."


def parity_text(rows: Sequence[ParityRow], values: dict[str, Any]) -> str:
    """The table for the terminal."""
    return _parity_page(rows, values, markdown=False)


def parity_markdown(rows: Sequence[ParityRow], values: dict[str, Any]) -> str:
    """The report as Markdown; `values` are those of the JSON."""
    return "# Parity with PyTorch\n\n" + _parity_page(rows, values, markdown=True)


def _parity_page(rows: Sequence[ParityRow], values: dict[str, Any], *, markdown: bool) -> str:
    table = parity_table(rows)
    lines = machine_lines(values, markdown)
    lines += [table.to_markdown() if markdown else table.to_text(), preprocessing_line(rows)]
    breaches = [line for row in rows for line in row.breaches]
    if breaches:
        lines += ["", "Breaches:", *(f"- {line}" for line in breaches)]
    if values["run"] is None:
        lines += [
            "",
            "No run was given: only the golden images, with the logits of the export, were compared.",
        ]
    return "\n".join(lines) + "\n"


def machine_lines(values: dict[str, Any], markdown: bool) -> list[str]:
    """Machine, bundle and run, one line each; with an empty line after each in Markdown."""
    machine, bundle, run = values["machine"], values["bundle"], values["run"]
    before, after = (values["load_average"][moment][0] for moment in ("before", "after"))
    versions = [f"Python {machine['python']}"]
    versions += [f"{name} {version}" for name, version in machine["packages"].items()]
    cores = f"{machine['usable_cores']} of {machine['cores']} cores usable"
    lines = [
        f"Machine: {machine['cpu']}, {cores}, {machine['memory_gib']} GiB; GPU: {machine['gpu']}.",
        f"System: {machine['system']}; {', '.join(versions)}.",
        f"Date: {machine['date']}; load average {before:.2f} before, {after:.2f} after.",
        f"Bundle: {bundle['name']} ({bundle['path']}, SHA-256 {bundle['sha256'][:12]}).",
    ]
    if run:
        network = f"{run['architecture']}, {run['encoder']}, checkpoint {run['checkpoint_sha256'][:12]}"
        lines.append(f"Run: {run['path']} ({network}).")
    if before > BUSY:
        lines.append("Other programs were running at the start, see the load: measure on a quiet machine.")
    return [line + ("\n" if markdown else "") for line in lines] + ([] if markdown else [""])


def figures_table(rows: Sequence[Figure]) -> Table:
    """One row per figure of a section of the runtime's figures."""
    header = ("figure", "value>", "unit", "p25-p75>", "min-max>", "target", "verdict", "note")
    return Table(header, tuple(_figure_cells(row) for row in rows))


def _figure_cells(row: Figure) -> tuple[str, ...]:
    stats = row.stats
    return (
        row.name,
        "-" if row.value is None else _fine(row.value),
        row.unit,
        f"{_fine(stats.p25)}-{_fine(stats.p75)}" if stats else "-",
        f"{_fine(stats.min)}-{_fine(stats.max)}" if stats else "-",
        str(row.target) if row.target else "-",
        row.verdict,
        row.note,
    )


def _fine(value: float) -> str:
    """Three decimals below 10, since a ratio is judged by its second; one above."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def figures_text(sections: Mapping[str, Sequence[Figure]], values: dict[str, Any]) -> str:
    """All sections for the terminal."""
    return _figures_page(sections, values, markdown=False)


def figures_markdown(sections: Mapping[str, Sequence[Figure]], values: dict[str, Any]) -> str:
    """The report as Markdown; `values` are those of the JSON."""
    return "# The runtime's figures\n\n" + _figures_page(sections, values, markdown=True)


def _figures_page(sections: Mapping[str, Sequence[Figure]], values: dict[str, Any], *, markdown: bool) -> str:
    lines = machine_lines(values, markdown)
    for name, rows in sections.items():
        table = figures_table(rows)
        lines += [f"## {name}" if markdown else name, ""]
        lines.append(table.to_markdown() if markdown else table.to_text())
    return "\n".join(lines)
