"""The head of the benchmark's page: what to serve, whether the times hold, one table of all artefacts."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from tumorseg_benchmarks.latency.choice import WON
from tumorseg_benchmarks.reports.networks import NetworkReport, Row
from tumorseg_benchmarks.reports.report import BUSY
from tumorseg_train.report.page import PASSED, REFUSED, UNVERIFIED, Verdict, badge, table
from tumorseg_train.report.tables import number


def verdict(networks: Sequence[NetworkReport]) -> Verdict:
    """Which artefact of each network to serve; red where one has none, amber where the machine was busy."""
    said = [_choice(network) for network in networks]
    titles = [f"{network.title}: " if len(networks) > 1 else "" for network in networks]
    text = "; ".join(
        f"{title}{one or 'nothing may serve, since no artefact holds parity and the budgets'}"
        for title, one in zip(titles, said, strict=True)
    )
    if not all(said):
        return Verdict(REFUSED, f"{text}.")
    if banner(networks):
        return Verdict(UNVERIFIED, f"{text}, as measured on a busy machine.")
    return Verdict(PASSED, f"{text}.")


def _choice(network: NetworkReport) -> str:
    """'' where none may serve."""
    won = next((one["label"] for one in network.bench["choice"] if one["status"] == WON), None)
    row = next((row for row in network.first if row["label"] == won), None)
    if row is None:
        return f"serve {won}" if won else ""
    gain = row["speed_up"]
    faster = f", {number(gain['median'])} times as fast as the reference" if gain else ""
    return f"serve {won}: {number(row['stages']['infer']['median'])} ms for {_images(row)}{faster}"


def _images(row: Row) -> str:
    return "one image" if row["batch"] == 1 else f"{row['batch']} images"


def banner(networks: Sequence[NetworkReport]) -> str:
    """What else ran; empty for a quiet machine."""
    loads = [network.bench["load_average"]["before"][0] for network in networks]
    if max(loads) <= BUSY:
        return ""
    return (
        f"Other programs were running: the load was {max(loads):.1f} before the start, expected at most "
        f"{BUSY:g}. Ratios within a round still hold; measure on a quiet machine."
    )


def artefact_table(networks: Sequence[NetworkReport]) -> Markup:
    """All that was timed at the smallest batch or refused, and a line for each reason why others could not
    run here: the one table of the page."""
    header = (
        "artefact", "verdict", "network ms>", "times faster>", "end to end ms>", "MB>", "why or why not",
    )  # fmt: skip
    rows: list[tuple[str, ...]] = []
    for network in networks:
        before = f"{network.title}: " if len(networks) > 1 else ""
        batch, threads = min(network.bench["plan"]["batches"]), network.threads
        chosen = {one["label"]: one for one in network.bench["choice"]}
        for row in network.bench["rows"]:
            if (row["batch"], row["threads"]) == (batch, threads) and row["role"] != "control":
                one = chosen.get(row["label"], {"size_mb": None, "reason": row["role"]})
                rows.append(_cells(before, row, number(one["size_mb"]), one["reason"]))
        for reason, labels in network.bench["left_out"].items():
            more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
            rows.append((before + labels[0] + more, badge(UNVERIFIED), *["-"] * 4, reason))
    return table(header, rows, label="Artefacts", cards=True)


def _cells(before: str, row: Row, size: str, reason: str) -> tuple[str, ...]:
    if row["status"] != "measured":
        state = REFUSED if row["status"].startswith("refused") else UNVERIFIED
        return (before + row["label"], badge(state), "-", "-", "-", size, row["reason"])
    gain, stages = row["speed_up"], row["stages"]
    times = "{median:.2f} ({low:.2f} to {high:.2f})".format(**gain) if gain else "1"
    return (
        before + row["label"], badge(PASSED), number(stages["infer"]["median"]), times,
        number(stages["end_to_end"]["median"]), size, reason,
    )  # fmt: skip
