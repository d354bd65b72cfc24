"""The report of a comparison: one HTML page with Pareto plots, and the same tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tumorseg_train.evaluation.predictions import CONTRACT, ORIGINAL
from tumorseg_train.evaluation.tables import estimate_cell, known, or_nan, share
from tumorseg_train.report.charts import Bar, Point, bars, scatter
from tumorseg_train.report.page import (
    PASSED,
    UNVERIFIED,
    Verdict,
    bullets,
    captioned,
    page,
    side_by_side,
)
from tumorseg_train.report.tables import Table, number

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
    return Table(header, tuple(rows), split_title(split), note)


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
    return Table(header, tuple(rows), "Clean against random split", note)


def comparison_tables(values: Mapping[str, Any]) -> list[Table]:
    """All tables."""
    found = [split_table(split) for split in values["splits"]]
    return [*found, leak_table(values)] if values["leaks"] else found


def comparison_markdown(values: Mapping[str, Any]) -> str:
    """The tables as Markdown."""
    parts = [f"# {TITLE}\n", f"{_what(values)}\n"]
    parts += [f"- {note}" for note in values["notes"]] + ([""] if values["notes"] else [])
    for each in comparison_tables(values):
        parts += [f"## {each.title}\n", each.to_markdown(), f"{each.note}\n"]
    return "\n".join(parts)


def comparison_page(values: Mapping[str, Any]) -> str:
    """The page."""
    folded: list[tuple[str, Markup]] = []
    for at, split in enumerate(values["splits"], start=1):
        plain = METHODS[split["method"]]
        heading = plain if len(values["splits"]) == 1 else f"{at}. {plain}"
        folded.append(
            (heading, captioned(split_table(split)) + side_by_side([_dice(split), *_plots(split["runs"])]))
        )
    if values["leaks"]:
        folded.append(("Clean against random split", captioned(leak_table(values))))
    folded.append(("What the figures mean", bullets(MEANINGS.strip().split("\n\n"))))
    if values["notes"]:
        folded.append(("Notes", bullets(values["notes"])))
    busy = any(
        run["latency"] and run["latency"]["busy"] for split in values["splits"] for run in split["runs"]
    )
    return page(
        TITLE,
        verdict(values),
        captioned(summary_table(values), cards=True),
        folded=folded,
        banner="Other programs were running when latencies were measured: measure on a quiet machine." * busy,
        lead=_what(values),
    )


def verdict(values: Mapping[str, Any]) -> Verdict:
    """Of the first split: which network is best, and whether the second can be told from it."""
    split = values["splits"][0]
    best, *others = split["runs"]
    said = f"{best['name']} has the best mean Dice, {estimate_cell(best['figures']['mean_dice'])}"
    if split["method"] != "grouped":
        return Verdict(UNVERIFIED, f"{said}, but on a split that is not clean.", "doubtful")
    if not others:
        return Verdict(UNVERIFIED, f"{said}: no other network is on its split.", "alone")
    gap = others[0]["against_best"]["mean_dice"]
    if known(gap["high"]) and gap["high"] < 0:
        return Verdict(PASSED, f"{said}; {others[0]['name']} is worse by {gap_cell(gap)}.", "told apart")
    return Verdict(
        UNVERIFIED, f"{said}, but {others[0]['name']} cannot be told from it: {gap_cell(gap)}.", "undecided"
    )


def summary_table(values: Mapping[str, Any]) -> Table:
    """All runs of all splits: the one table of the page."""
    header = (
        "network",
        "split",
        "mean Dice>",
        "difference to the best>",
        "parameters>",
        "GFLOP>",
        "latency ms>",
    )
    rows = []
    for index, split in enumerate(values["splits"], start=1):
        place = {"grouped": "clean", "random": "random", "unknown": "unknown"}[split["method"]]
        for run in split["runs"]:
            gaps = run["against_best"]
            rows.append(
                (
                    run["name"], place if len(values["splits"]) == 1 else f"{index}: {place}",
                    estimate_cell(run["figures"]["mean_dice"]),
                    "best" if gaps is None else gap_cell(gaps["mean_dice"]),
                    f"{run['parameters'] / 1e6:.1f} M", f"{run['gflop']:.1f}",
                    latency_cells(run["latency"])[0],
                )
            )  # fmt: skip
    return Table(header, tuple(rows), "Networks", "Differences are within a split.")


def _dice(split: Mapping[str, Any]) -> Markup:
    rows = [
        Bar(run["name"], or_nan(found["value"]), found["low"], found["high"])
        for run in split["runs"]
        for found in [run["figures"]["mean_dice"]]
    ]
    return bars("Mean Dice with 95 % intervals", rows, top=1)


def _plots(runs: Sequence[Mapping[str, Any]]) -> list[Markup]:
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
                or_nan(amount),
                or_nan(found["value"]),
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
