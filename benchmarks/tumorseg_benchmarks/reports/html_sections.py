"""The sections of the benchmark's page, made from the JSON of one network or of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tumorseg_benchmarks.latency.stages import PARTS
from tumorseg_benchmarks.reports.networks import NetworkReport
from tumorseg_benchmarks.reports.summaries import choice_line, choice_table
from tumorseg_train.report.charts import Bar, Point, bars, histogram, scatter
from tumorseg_train.report.page import (
    bullets,
    details,
    heading,
    paragraph,
    side_by_side,
    table,
)
from tumorseg_train.report.tables import number


def _gpu(machine: Mapping[str, Any]) -> str:
    return str(machine["gpu"])


def machine_section(networks: Sequence[NetworkReport]) -> Markup:
    """Machine, versions, load and clocks, and each bundle."""
    machine = networks[0].bench["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    cores = f"{machine['usable_cores']} of {machine['cores']} cores"
    lines = [
        f"{machine['cpu']}, {cores}, {machine['memory_gib']} GiB",
        f"GPU: {_gpu(machine)}",
        f"{machine['system']}; Python {machine['python']}, {packages}",
    ]
    rows = []
    for network in networks:
        bench, bundle = network.bench, network.bench["bundle"]
        load = [bench["load_average"][moment][0] for moment in ("before", "after")]
        frequency = bench["cpu_frequency"]
        waiting = [frequency[moment]["cpu"]["waiting_percent"] for moment in ("before", "after")]
        work = bench["work"]
        rows.append(
            (
                network.title, f"{bundle['height']}x{bundle['width']}", bundle["sha256"][:12],
                number(work["flop"] / 1e9) if "flop" in work else work["reason"],
                f"{load[0]:.2f}, {load[1]:.2f}", ", ".join(map(str, waiting)),
                _clock(frequency["before"]["cpu"]), str(frequency["after"]["cpu"]["throttled"]),
                bench["machine"]["date"],
            )
        )  # fmt: skip
    header = (
        "bundle", "input", "SHA-256", "GFLOP>", "load before, after", "waiting % before, after", "CPU clocks",
        "throttled", "date",
    )  # fmt: skip
    note = (
        "Load: runnable processes, mean of a minute. Waiting: share of ten seconds in which some task waited "
        "for a CPU. Speed-ups are paired within rounds; medians of a busy machine are not to be compared "
        "between reports."
    )
    return bullets(lines) + table(header, rows) + paragraph(note, note=True)


def _clock(cpu: Mapping[str, Any]) -> str:
    mhz = cpu["mhz"]
    text = mhz if isinstance(mhz, str) else f"{min(mhz)}-{max(mhz)} MHz"
    return f"{text}; governor {cpu['governor']}"


def pareto_section(networks: Sequence[NetworkReport]) -> Markup:
    """Dice against latency, of all networks together."""
    points = []
    for network in networks:
        dice = network.dice()
        for row in network.first:
            noninferiority = dice.get(row["variant"]["name"])
            known = noninferiority["artefact"] if noninferiority else None
            if known is None and row["role"] == "reference" and dice:
                known = next(iter(dice.values()))["pytorch"]  # PyTorch is the reference of all
            if known is not None and row["role"] != "control":
                label = f"{network.title}, {row['label']}" if len(networks) > 1 else row["label"]
                points.append(Point(label, row["stages"]["infer"]["median"], known, kind=network.title))
    if not points:
        return paragraph(
            "No Dice is known here: run tumorseg parity with --run on images that have a ground truth, and "
            "give its parity.json (tumorseg bench --parity, or "
            "python -m tumorseg_benchmarks.reports.html_report)."
        )
    text = "Mean Dice against the ground truth of the split. The dashed line joins what nothing else beats."
    drawn = scatter(
        "Dice against latency", points, x="ms for one image", y="mean Dice", log_x=True, front=True
    )
    return paragraph(text) + drawn


def choice_section(network: NetworkReport) -> Markup:
    """Who shall serve and why each other lost."""
    found = choice_table(network.bench)
    text = paragraph(choice_line(network.bench))
    return text + (table(found.header, found.rows) if found.rows else paragraph("No artefact."))


def speed_section(network: NetworkReport) -> Markup:
    """Speed-ups with their intervals: the network alone beside end to end."""
    parts: list[Markup] = []
    for batch, threads in network.plans:
        rows = [row for row in network.measured(batch, threads) if row["speed_up"]]
        if not rows:
            continue
        charts = [
            bars(
                f"Batch {batch}, threads {threads}: {title}",
                [Bar(row["label"], *(row[key][name] for name in ("median", "low", "high"))) for row in rows],
                unit="times",
            )
            for title, key in (("network alone", "speed_up"), ("end to end", "end_to_end_speed_up"))
        ]
        verdicts = [
            f"{row['label']}: {row['speed_up']['verdict']}" for row in rows if row["role"] == "control"
        ]
        parts += [
            side_by_side(charts),
            bullets([f"A/A control, {line}" for line in verdicts]),
        ]
    reference = network.bench["reference"]["timed_against"]
    text = (
        f"Reference: {reference}. Above 1 is faster. Medians of the ratios within rounds, with 95 % "
        "intervals of a block bootstrap. The A/A control is the reference against itself, and should be 1."
    )
    return paragraph(text) + Markup().join(parts)


def latency_section(network: NetworkReport) -> Markup:
    """Distributions: tables of all, histograms at the smallest batch."""
    header = (
        "variant", "p50 ms>", "p25-p75>", "p90>", "p99>", "min>", "max>", "samples>", "images/s>",
        "end to end ms>", "trend",
    )  # fmt: skip
    parts: list[Markup] = []
    for batch, threads in network.plans:
        rows = []
        for row in network.measured(batch, threads):
            infer, trend = row["stages"]["infer"], row["trend"]
            rows.append(
                (
                    row["label"], number(infer["median"]), f"{number(infer['p25'])}-{number(infer['p75'])}",
                    number(infer["p90"]), number(infer["p99"]), number(infer["min"]), number(infer["max"]),
                    str(infer["samples"]), number(row["images_per_second"]),
                    number(row["stages"]["end_to_end"]["median"]),
                    f"{trend['percent']:+.0f} % (p {trend['p']:.2g})" if trend["p"] < 0.01 else "none found",
                )
            )  # fmt: skip
        if rows:
            parts += [heading(f"Batch {batch}, threads {threads}"), table(header, rows)]
    charts = [
        histogram(row["label"], [sample["ms"]["infer"] for sample in row["samples"]], x="ms")
        for row in network.first
    ]
    note = (
        "p90 is given from 64 samples, p99 from 662 (MLPerf's counts of early stopping). Nothing is clipped. "
        "Trend: Mann and Kendall's test for a trend over the rounds, at the level of 1 %."
    )
    title = "Distributions of each variant at the smallest batch"
    shown = details(title, side_by_side(charts)) if charts else Markup()
    return Markup().join(parts) + shown + paragraph(note, note=True)


def stages_section(network: NetworkReport) -> Markup:
    """Medians by stage."""
    names = ("decode", "preprocess", "upload", "infer", "download", "postprocess", "end_to_end")
    header = ("variant", *(f"{name.replace('_', ' ')} ms>" for name in names))
    parts: list[Markup] = []
    for batch, threads in network.plans:
        rows = []
        for row in network.measured(batch, threads):
            stages = row["stages"]
            split = all(part in stages for part in PARTS)
            keys = ["compute" if split and name == "infer" else name for name in names]
            rows.append(
                (row["label"], *(number(stages[key]["median"]) if key in stages else "" for key in keys))
            )
        if rows:
            parts += [heading(f"Batch {batch}, threads {threads}"), table(header, rows)]
    note = "Medians of the whole batch. A CPU has no upload and no download: their cells are empty."
    return Markup().join(parts) + paragraph(note, note=True)
