"""The report of a comparison: one HTML page with Pareto plots, and the same tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tumorseg_train.evaluation.predictions import CONTRACT, ORIGINAL
from tumorseg_train.evaluation.tables import Table, estimate_cell, known, share
from tumorseg_train.report.charts import Bar, Point, bars, scatter
from tumorseg_train.report.page import Html, bullets, page, paragraph, side_by_side, table
from tumorseg_train.report.plot import number
from tumorseg_train.report.tables import markdown_table

TITLE = "Networks compared"
METHODS = {
    "grouped": "Clean split: groups on one side",
    "random": "Random split: near-duplicates and neighbours on both sides",
    "unknown": "Split of unknown kind",
}
MEANINGS = """
Intervals are of 95 %, by drawing groups with replacement. Differences on one split are paired: both networks
see the same draw. An interval that holds 0 does not tell which network is better.

GFLOP: convolutions and matrix products for one image at the network's size, a multiplication and its addition
as two.

Latency: the fastest artefact that passed parity, at batch 1; median and quartiles as `tumorseg bench`
measured them. On the dashed line lie the networks that none beats in both.
"""


def _what(values: Mapping[str, Any]) -> str:
    """Which images, and at which size."""
    scale = str(values["scale"])
    size = {CONTRACT: "each network's own size", ORIGINAL: "each image's own size"}.get(
        scale, f"{scale}x{scale}"
    )
    return f"Part '{values['part']}', masks compared at {size}."


def split_title(split: Mapping[str, Any]) -> str:
    """What is compared in a table."""
    return f"{METHODS[split['method']]} ({split['split_sha256'][:8]})"


def split_table(split: Mapping[str, Any]) -> Table:
    """Runs on one split."""
    organs = sorted({organ for run in split["runs"] for organ in run["organs"]})
    header = (
        "network", "size", "mean Dice>", "difference to the best>", *(f"{organ}: Dice>" for organ in organs),
        "pooled F1>", "difference>", "parameters>", "GFLOP>", "latency ms>", "best artefact",
    )  # fmt: skip
    rows = []
    for run in split["runs"]:
        gaps, latency = run["against_best"], run["latency"]
        rows.append(
            (
                run["name"], f"{run['height']}x{run['width']}", estimate_cell(run["figures"]["mean_dice"]),
                "best" if gaps is None else gap_cell(gaps["mean_dice"]),
                *(share(run["organs"].get(organ, {}).get("value")) for organ in organs),
                estimate_cell(run["figures"]["pooled_f1"]),
                "" if gaps is None else gap_cell(gaps["pooled_f1"]),
                f"{run['parameters'] / 1e6:.1f} M", f"{run['gflop']:.1f}",
                *latency_cells(latency),
            )
        )  # fmt: skip
    note = f"{split['images']} images in {split['groups']} groups."
    if split["mates"] is not None:
        note += f" {split['mates']} of them have a group mate in the training part."
    return Table(split_title(split), header, tuple(rows), note)


def latency_cells(latency: Mapping[str, Any] | None) -> tuple[str, str]:
    """Milliseconds with quartiles, and the artefact with its machine."""
    if latency is None:
        return "not measured", "-"
    busy = "; the machine was busy" if latency["busy"] else ""
    return (
        f"{number(latency['infer_ms'])} ({number(latency['low_ms'])} to {number(latency['high_ms'])})",
        f"{latency['artefact']} ({latency['machine']}{busy})",
    )


def gap_cell(gap: Mapping[str, float | None]) -> str:
    """A difference with its sign and interval."""
    value, low, high = gap["value"], gap["low"], gap["high"]
    if value is None or not known(value):
        return "-"
    text = f"{value:+.3f}"
    return f"{text} ({low:+.3f} to {high:+.3f})" if known(low) and known(high) else text


def leak_table(values: Mapping[str, Any]) -> Table:
    """The same network on a clean and on a random split."""
    header = (
        "network", "mean Dice, clean>", "random>", "difference>", "pooled F1, clean>", "random>",
        "difference>", "test images with a mate in training>",
    )  # fmt: skip
    rows = []
    for leak in values["leaks"]:
        cells = [leak["clean"] if leak["clean"] == leak["random"] else f"{leak['clean']} / {leak['random']}"]
        for figure in ("mean_dice", "pooled_f1"):
            found = leak[figure]
            cells += [share(found["clean"]), share(found["random"]), gap_cell(found["difference"])]
        rows.append((*cells, "-" if leak["mates"] is None else str(leak["mates"])))
    note = (
        "The test images differ, so the differences are not paired, and hold the luck of two sets of images."
    )
    return Table("Clean against random split", header, tuple(rows), note)


def comparison_tables(values: Mapping[str, Any]) -> list[Table]:
    """All tables."""
    found = [split_table(split) for split in values["splits"]]
    return [*found, leak_table(values)] if values["leaks"] else found


def comparison_markdown(values: Mapping[str, Any]) -> str:
    """The tables as Markdown."""
    parts = [f"# {TITLE}\n", f"{_what(values)}\n"]
    parts += [f"- {note}" for note in values["notes"]] + ([""] if values["notes"] else [])
    for each in comparison_tables(values):
        parts += [f"## {each.title}\n", markdown_table(each.header, each.rows), f"{each.note}\n"]
    return "\n".join(parts)


def comparison_page(values: Mapping[str, Any]) -> str:
    """The page."""
    sections: list[tuple[str, str]] = []
    for split in values["splits"]:
        each = split_table(split)
        body = _table(each) + side_by_side([_dice(split), *_plots(split["runs"])])
        sections.append((each.title, Html(body)))
    if values["leaks"]:
        sections.append(("Clean against random split", _table(leak_table(values))))
    sections.append(("What the figures mean", bullets(MEANINGS.strip().split("\n\n"))))
    lead = bullets([_what(values), *values["notes"]])
    return page(TITLE, sections, lead=lead)


def _table(each: Table) -> Html:
    return Html(table(each.header, each.rows, label=each.title) + paragraph(each.note, note=True))


def _dice(split: Mapping[str, Any]) -> Html:
    rows = [
        Bar(run["name"], _number(found["value"]), found["low"], found["high"])
        for run in split["runs"]
        for found in [run["figures"]["mean_dice"]]
    ]
    return bars("Mean Dice with 95 % intervals", rows, top=1)


def _plots(runs: Sequence[Mapping[str, Any]]) -> list[Html]:
    """Dice against each cost that is known of some network."""
    costs = {
        "latency of the best artefact, ms": [(run["latency"] or {}).get("infer_ms") for run in runs],
        "GFLOP": [run["gflop"] for run in runs],
        "million parameters": [run["parameters"] / 1e6 for run in runs],
    }
    charts = []
    for name, amounts in costs.items():
        if not any(amount is not None for amount in amounts):
            continue
        points = [
            Point(
                run["name"],
                _number(amount),
                _number(found["value"]),
                found["low"],
                found["high"],
                run["architecture"],
            )
            for run, amount in zip(runs, amounts, strict=True)
            for found in [run["figures"]["mean_dice"]]
        ]
        charts.append(
            scatter(f"Mean Dice against {name}", points, x=name, y="mean Dice", log_x=True, front=True)
        )
    return charts


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
