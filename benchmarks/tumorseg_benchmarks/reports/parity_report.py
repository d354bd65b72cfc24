"""Sections of a parity report beside the table of logits: preprocessing, decisions, task, margins, layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tumorseg_benchmarks.parity.findings import Findings
from tumorseg_benchmarks.parity.layer_diff import LayerDiff
from tumorseg_benchmarks.parity.preprocess_paths import vectors_lines
from tumorseg_benchmarks.parity.rows import CONFORMANCE, ParityRow
from tumorseg_runtime.parity.mask_diff import Decisions
from tumorseg_train.report.tables import Table

SHOWN_EVENTS = 5  # lesions that appeared or vanished, of an image
SHOWN_LAYERS = 12  # of a file's layers, around the first one that diverges


@dataclasses.dataclass(frozen=True)
class Section:
    """Lines, and a table below them."""

    title: str
    lines: tuple[str, ...]
    table: Table | None = None


def sections(findings: Findings) -> list[Section]:
    """All that have something to say."""
    found = [
        Section("Bytes to tensor", tuple(vectors_lines(list(findings.vectors)))),
        Section("Decisions", (), decisions_table(findings.rows)),
        Section("Acceptance", tuple(acceptance_lines(findings.rows))),
        Section("Task", tuple(task_lines(findings.rows))),
        Section("Thinnest margins", tuple(margin_lines(findings))),
        *(
            Section(f"Layers of {one.artefact}", _layer_lines(one), layers_table(one))
            for one in findings.layer_diffs
        ),
    ]
    return [each for each in found if each.lines or (each.table and each.table.rows)]


def further_sections(findings: Findings, *, markdown: bool) -> str:
    """All sections, each under its title."""
    mark = "## " if markdown else ""
    return "".join(
        f"\n{mark}{each.title}\n\n{_items(each.lines)}{_table(each.table, markdown)}\n"
        for each in sections(findings)
    )


def decisions_table(rows: Sequence[ParityRow]) -> Table:
    """One row per variant and set: sums over all images, and the worst distance of borders."""
    header = (
        "variant", "images", "batch>", "in band>", "flipped>", "outside band>", "images with other lesions>",
        "area>", "appeared, vanished>", "flipped per border px>", "HD95 px>",
        "flipped at own size>", "outside>",
    )  # fmt: skip
    return Table(header, tuple(_cells(row) for row in rows if row.report))


def _cells(row: ParityRow) -> tuple[str, ...]:
    assert row.report is not None
    images = row.report.images
    network = [image.decisions for image in images if image.decisions]
    own = [image.at_image for image in images if image.at_image]
    events = [event.kind for one in network for event in one.events]
    area, other = (sum(one.area_px[side] for one in network) for side in (0, 1))
    return (
        row.variant.label,
        f"{len(images)} {row.images}",
        str(row.batch),
        f"{sum(one.near for one in network)}",
        f"{sum(one.flipped for one in network)}",
        f"{sum(one.outside for one in network)}",
        f"{sum(one.lesions[0] != one.lesions[1] for one in network)}",
        f"{other - area:+d} of {area}",
        f"{events.count('appeared')}, {events.count('vanished')}",
        f"{max((one.flipped - one.event_px) / (one.border or 1) for one in network):.3g}" if network else "-",
        f"{max((one.hd95_px for one in network), default=0):.3g}",
        f"{sum(one.flipped for one in own)} of {_pixels(own)}" if own else "-",
        f"{sum(one.outside for one in own)}" if own else "-",
    )


def _pixels(decisions: Sequence[Decisions]) -> int:
    return sum(one.pixels for one in decisions)


def acceptance_lines(rows: Sequence[ParityRow]) -> list[str]:
    """Per set what noise does to PyTorch itself, then per variant and set how many images failed, and the
    lesions that appeared or vanished."""
    known = {row.images: row.yardstick for row in rows if row.yardstick}
    lines = [f"{images} images, for comparison: {yardstick.line}" for images, yardstick in known.items()]
    for row in rows:
        if row.report is None or row.images == CONFORMANCE:
            continue
        line = f"{row.variant.label}, {row.images} images, batch {row.batch}: {row.report.failures.line}"
        lines.append(f"{line}; {row.reason}" if row.reason else line)
        for image in row.report.images:
            lines += [
                f"{row.variant.label}: {image.image}: a lesion of {event.area_px} pixels {event.kind} within "
                f"the logits' error, at column {event.box[0]}, row {event.box[1]}"
                for event in (image.decisions.events if image.decisions else ())
                if not event.outside
            ][:SHOWN_EVENTS]
    return lines


def task_lines(rows: Sequence[ParityRow]) -> list[str]:
    """One line per variant that was held against the ground truth."""
    return [
        f"{row.variant.label}, {row.images} images: {row.noninferiority.line}"
        for row in rows
        if row.noninferiority
    ]


def margin_lines(findings: Findings) -> list[str]:
    """One line per image, the thinnest first."""
    return [
        f"{margin.image}: an error of {margin.logits:.3g} logits could break the budget of flipped pixels"
        for margin in findings.margins
    ]


def layers_table(layer_diff: LayerDiff) -> Table:
    """The layers around the first one that diverges, or the last ones; the JSON has them all."""
    at = layer_diff.layers.index(layer_diff.first) if layer_diff.first else len(layer_diff.layers) - 1
    start = max(0, min(at - SHOWN_LAYERS // 2, len(layer_diff.layers) - SHOWN_LAYERS))
    cells = tuple(
        (
            layer.module,
            layer.node,
            "-" if layer.input_db is None else f"{layer.input_db:.1f}",
            f"{layer.db:.1f}",
            f"{layer.max_error:.2g}",
            "-" if layer.weights_differ is None else f"{layer.weights_differ:.2g}",
            ", ".join(layer.between),
        )
        for layer in layer_diff.layers[start : start + SHOWN_LAYERS]
    )
    header = (
        "module",
        "node",
        "SNR in, dB>",
        "SNR out, dB>",
        "error>",
        "weights differ>",
        "operators before",
    )
    return Table(header, cells)


def _layer_lines(layer_diff: LayerDiff) -> tuple[str, ...]:
    unmatched = layer_diff.unmatched
    return (f"{layer_diff.line}.", *([f"Not matched: {', '.join(unmatched)}."] if unmatched else []))


def _table(table: Table | None, markdown: bool) -> str:
    if table is None or not table.rows:
        return ""
    return "\n" + (table.to_markdown() if markdown else table.to_text())


def _items(lines: Sequence[str]) -> str:
    return "".join(f"  {line}\n" if line.startswith("  ") else f"- {line}\n" for line in lines)
