"""The latency report as text and Markdown; its JSON is described in docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tumorseg_benchmarks.latency.intervals import SAME_SPEED, SpeedUp
from tumorseg_benchmarks.latency.roofline import Peak
from tumorseg_benchmarks.latency.rows import CONTROL, END_TO_END, BenchRow
from tumorseg_benchmarks.latency.stages import PARTS
from tumorseg_benchmarks.reports.report import machine_lines
from tumorseg_benchmarks.reports.summaries import (
    choice_line,
    choice_table,
    cold_table,
    peak_line,
    roofline_table,
)
from tumorseg_train.report.tables import Table, number

STAGE_COLUMNS = ("decode", "preprocess", "upload", "infer", "download", "postprocess", END_TO_END)


def bench_table(rows: Sequence[BenchRow]) -> Table:
    """Rows of one batch size and thread count: the network alone, and from bytes to lesions, side by side."""
    header = (
        "variant", "infer ms>", "p25-p75>", "p90>", "p99>", "min-max>", "images/s>", "times faster>", "95 %>",
        "end to end ms>", "times faster>", "95 %>", "note",
    )  # fmt: skip
    return Table(header, tuple(_bench_cells(row) for row in rows))


def _bench_cells(row: BenchRow) -> tuple[str, ...]:
    if row.status != "measured":
        return (row.label, *["-"] * 11, f"{row.status}: {row.reason}")
    infer = row.stages["infer"]
    return (
        row.label,
        number(infer.median),
        f"{number(infer.p25)}-{number(infer.p75)}",
        number(infer.p90),
        number(infer.p99),
        f"{number(infer.min)}-{number(infer.max)}",
        number(row.images_per_second),
        *_gain(row.speed_up),
        number(row.stages[END_TO_END].median),
        *_gain(row.end_to_end_speed_up),
        {"reference": "reference", "control": "control"}.get(
            row.role, "within noise" if row.within_noise else ""
        ),
    )


def _gain(gain: SpeedUp | None) -> tuple[str, str]:
    return (f"{gain.median:.3f}", f"{gain.low:.3f}-{gain.high:.3f}") if gain else ("1", "-")


def stage_table(rows: Sequence[BenchRow]) -> Table:
    """Medians of each stage; a stage that does not exist on the device is empty."""
    header = ("variant", *(f"{name.replace('_', ' ')} ms>" for name in STAGE_COLUMNS))
    measured = [row for row in rows if row.status == "measured"]
    return Table(header, tuple((row.label, *_stage_cells(row)) for row in measured))


def _stage_cells(row: BenchRow) -> list[str]:
    split = all(part in row.stages for part in PARTS)
    names = ["compute" if split and name == "infer" else name for name in STAGE_COLUMNS]
    return [number(row.stages[name].median) if name in row.stages else "" for name in names]


def noise_lines(rows: Sequence[BenchRow]) -> list[str]:
    """What the A/A controls of one batch size say, one line per group that was timed, and who drifted."""
    lines = []
    for row in rows:
        if row.role == "control" and row.speed_up:
            gain = row.speed_up
            name = row.label.removesuffix(CONTROL)
            lines.append(
                f"A/A control: {name} against itself: {gain.median:.3f} times as fast ({gain.low:.3f}-"
                f"{gain.high:.3f}; single rounds {gain.min:.2f}-{gain.max:.2f}): {gain.verdict}."
                + (
                    ""
                    if gain.verdict == SAME_SPEED
                    else " Differences of this size are noise in this report: measure again."
                )
            )
    drifted = [row for row in rows if row.trend and row.trend.found]
    if drifted:
        changes = "; ".join(f"{row.label} {row.trend.percent:+.0f} %" for row in drifted if row.trend)
        lines.append(f"Trend over the rounds (Mann-Kendall, p < 0.01): {changes}. Ratios are paired.")
    wandered = [row.label for row in rows if row.speed_up and row.speed_up.trend.found]
    if wandered:
        lines.append(f"The ratio itself drifted (Mann-Kendall, p < 0.01): {'; '.join(wandered)}.")
    return lines


def left_out_lines(left_out: Mapping[str, Sequence[str]]) -> list[str]:
    """One line for each reason."""
    return [f"Left out ({reason}): {'; '.join(labels)}." for reason, labels in left_out.items()]


def bench_text(rows: Sequence[BenchRow], values: dict[str, Any]) -> str:
    """All tables for the terminal."""
    return _bench_page(rows, values, markdown=False)


def bench_markdown(rows: Sequence[BenchRow], values: dict[str, Any]) -> str:
    """The report as Markdown; `values` are those of the JSON."""
    return "# Latency\n\n" + _bench_page(rows, values, markdown=True)


def _bench_page(rows: Sequence[BenchRow], values: dict[str, Any], *, markdown: bool) -> str:
    bundle, plan, reference = values["bundle"], values["plan"], values["reference"]
    gap = "\n" if markdown else ""
    lines = machine_lines(values, markdown)
    lines.append(f"Reference: {reference['timed_against']}.{gap}")
    lines.append(f"Logits checked against: {reference['logits_from']}.{gap}")
    lines += [line + gap for line in left_out_lines(values["left_out"])]
    lines.append("")
    for threads in plan["threads"]:
        for batch in plan["batches"]:
            chosen = [row for row in rows if (row.batch, row.threads) == (batch, threads)]
            rounds = max((row.rounds for row in chosen), default=0)
            title = (
                f"Batch {batch}, {bundle['height']}x{bundle['width']}, CPU threads {threads}, rounds {rounds}"
            )
            lines += [f"## {title}" if markdown else title, ""]
            tables = (bench_table(chosen), stage_table(chosen))
            lines += [
                (table.to_markdown() if markdown else table.to_text()) for table in tables if table.rows
            ]
            lines += [line + gap for line in noise_lines(chosen)] + [""]
    for title, said, table in _summaries(values):
        lines += [f"## {title}" if markdown else title, "", *(line + gap for line in said)]
        lines += [table.to_markdown() if markdown else table.to_text()] if table.rows else []
    return "\n".join(lines)


def _summaries(values: dict[str, Any]) -> list[tuple[str, list[str], Table]]:
    """Title, lines and table of what follows the latencies."""
    found = [("Choice", [choice_line(values)], choice_table(values))]
    if values["cold_start"] or values["cold_start_failed"]:
        failed = list(values["cold_start_failed"].values())
        found.append(("Start and memory, in processes of their own", failed, cold_table(values)))
    for peak in (Peak(**one) for one in values["peaks"]):
        found.append(
            ("Share of the direct-convolution bound", [peak_line(peak)], roofline_table(values, peak))
        )
    return found
