"""More sections of the benchmark's page: start and memory, roofline, parity, pictures, what is unverified."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tumorseg_benchmarks.latency.roofline import Peak, Work
from tumorseg_benchmarks.reports.bench_report import left_out_lines
from tumorseg_benchmarks.reports.networks import NetworkReport
from tumorseg_benchmarks.reports.summaries import (
    bound_rows,
    cold_table,
    error_cell,
    labels,
    peak_line,
    roofline_table,
)
from tumorseg_train.report.case_view import PageCase
from tumorseg_train.report.charts import Bar, bars
from tumorseg_train.report.page import badge, bullets, paragraph, table


def cold_section(network: NetworkReport) -> Markup:
    """Figures of processes of their own."""
    found = cold_table(network.bench)
    if not found.rows:
        return paragraph("Not measured (--no-cold).")
    text = "Each variant in three fresh processes of its own: medians, and the largest peak. Imports count."
    failed = list(network.bench["cold_start_failed"].values())
    return paragraph(text) + table(found.header, found.rows) + bullets(failed)


def roofline_section(network: NetworkReport) -> Markup:
    """Each variant's share of the direct-convolution bound."""
    work = network.bench["work"]
    if "flop" not in work:
        return paragraph(f"Not counted: {work['reason']}.")
    counted = Work(**work)
    parts: list[Markup] = []
    for values in network.bench["peaks"]:
        peak = Peak(**values)
        found = roofline_table(network.bench, peak)
        shares = [Bar(row["label"], 100 * share) for row, _, share in bound_rows(network.bench, peak)]
        parts += [
            paragraph(peak_line(peak)),
            table(found.header, found.rows),
            bars(f"Share of the bound, {peak_line(peak).partition(':')[0].lower()}", shares, unit="%"),
        ]
    lead = (
        f"{counted.flop / 1e9:.1f} GFLOP an image, {counted.moved / 1e6:.0f} MB of activations moved "
        f"by convolutions, {counted.weights / 1e6:.0f} MB of weights, counted from the ONNX file. The bound "
        "is that of direct convolution; beyond 100 % a share is effective: Winograd's method needs fewer "
        "multiplications."
    )
    return paragraph(lead) + Markup().join(parts)


def parity_section(network: NetworkReport) -> Markup:
    """Per artefact: on the timed images, and from parity.json where it was given."""
    header = (
        "variant",
        "images",
        "verdict",
        "logit error>",
        "in std>",
        "flipped px>",
        "Dice of masks>",
        "note",
    )
    rows = []
    for row in network.bench["rows"]:
        if row["role"] == "control" or row["threads"] != network.threads or not row["parity"]:
            continue
        rows.append((row["label"], f"timed, batch {row['batch']}", *_verdict(row["parity"]), row["reason"]))
    for row in network.parity["rows"] if network.parity else []:
        if row["report"]:
            noninferiority = row.get("noninferiority")
            said = "Dice ratio {ratio:.5f}: {status}".format(**noninferiority) if noninferiority else ""
            rows.append(
                (row["label"], f"{row['images']}, batch {row['batch']}", *_verdict(row["report"]), said)
            )
    without = Markup() if network.parity else paragraph("No parity.json of this bundle was given.", note=True)
    return table(header, rows) + without


def _verdict(report: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    images = report["images"]
    dice = [image["dice"] for image in images if image["dice"] is not None]
    return (
        badge("passed" if report["passed"] else "refused"),
        error_cell([image["max_error"] for image in images], report["passed"]),
        error_cell([image["relative_error"] for image in images], report["passed"]),
        str(max((image["flipped"] for image in images), default=0)),
        f"{min(dice, default=math.nan):.4f}",
    )


def worst_cases(network: NetworkReport) -> list[PageCase]:
    """Each variant's worst image, where its pictures are in the file (--keep-json leaves them out)."""
    names = labels(network.bench)
    cases = []
    for name, one in network.bench["worst"].items():
        error, dice = one["max_error"], one["dice"]
        said = (
            f"{one['image']}: {one['flipped']} of {one['pixels']} pixels flip, largest logit error "
            + ("not finite" if error is None else f"{error:.2g}")
            + ("." if dice is None else f", Dice between the masks {dice:.4f}.")
        )
        layers = dict(one.get("pictures", {}))
        if "flips" in layers:
            cases.append(PageCase(names[name], said, layers.pop("input"), f"Input {one['image']}", layers))
    return cases


def unverified_section(networks: Sequence[NetworkReport]) -> Markup:
    """What has no figure, and why."""
    lines: list[str] = []
    for network in networks:
        before = f"{network.title}: " if len(networks) > 1 else ""
        lines += [before + line for line in left_out_lines(network.bench["left_out"])]
        lines += [
            f"{before}{row['label']}, batch {row['batch']}, threads {row['threads']}: {row['status']}: "
            f"{row['reason']}"
            for row in network.bench["rows"]
            if row["status"] != "measured"
        ]
        unverified = [
            row for row in (network.parity["rows"] if network.parity else []) if row["status"] == "unverified"
        ]
        lines += [f"{before}parity of {row['label']}: {row['reason']}" for row in unverified]
    return bullets(lines) if lines else paragraph("Nothing.")
