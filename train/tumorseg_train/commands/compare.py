"""`tumorseg compare`: runs side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from tumorseg_runtime.cli.options import RUN, Existing, Options, command, out_option
from tumorseg_runtime.cli.terminal import say, say_text


@dataclass(frozen=True)
class CompareOptions(Options):
    """Of `tumorseg compare`. runs: or their evaluation.json. bench: files of latencies."""

    runs: tuple[Path, ...]
    part: str
    scale: str
    bench: tuple[Path, ...]
    out: Path


@command(CompareOptions, example="tumorseg compare runs/first runs/second --out build/comparison")
@click.argument(
    "runs",
    nargs=-1,
    required=True,
    metavar="RUN_OR_JSON...",
    type=Existing("a run or an evaluation.json", RUN),
)
@click.option(
    "--part", default="test", show_default=True, type=click.Choice(["train", "val", "test"]),
    help="Part of each run's split.",
)  # fmt: skip
@click.option(
    "--scale", default="contract", show_default=True, metavar="contract|original|PIXELS",
    help="Compare masks at each network's size, at each image's own, or at a square of so many pixels.",
)  # fmt: skip
@click.option(
    "--bench", multiple=True, metavar="FILE", type=Existing("a bench.json"),
    help="A bench.json of `tumorseg bench` for the latencies; may be repeated.",
)  # fmt: skip
@out_option(default=Path("build/comparison"), help="Folder of the report.")
def compare(options: CompareOptions) -> None:
    """Compare networks by Dice with intervals, size, operations and latency.

    Runs on the same split are compared image by image. Where the same network was trained on a clean and on a
    random split, the two are set side by side. An evaluation that lies in a run is used if it fits; otherwise
    the run is evaluated now. In place of a run its evaluation.json will do, where the run lies elsewhere.
    """
    from tumorseg_train.evaluation.comparison import NAME, gather
    from tumorseg_train.evaluation.comparison import compare as compare_runs
    from tumorseg_train.evaluation.comparison_report import (
        comparison_markdown,
        comparison_page,
        comparison_tables,
    )
    from tumorseg_train.evaluation.complexity import read_latencies
    from tumorseg_train.report.tables import json_text, write_report

    latencies, notes = read_latencies(options.bench)
    compared_runs = gather(options.runs, latencies, part=options.part, scale=options.scale, log=options.log)
    known = {each.evaluation["predictor"]["checkpoint_sha256"] for each in compared_runs}
    notes += [
        f"The benchmark of checkpoint {sha256[:12]} belongs to none of these runs."
        for sha256 in latencies
        if sha256 not in known
    ]
    values = compare_runs(compared_runs, notes)
    write_report(
        options.out, NAME, values=values, markdown=comparison_markdown(values), page=comparison_page(values)
    )
    if options.as_json:
        say_text(json_text(values), nl=False)
    else:
        for line in notes:
            say(line)
        for each in comparison_tables(values):
            say_text(f"{each.title}\n{each.to_text()}{each.note}\n")
    options.log(f"report: {options.out / NAME}.html")
    options.verdict(
        f"{len(compared_runs)} networks compared on part '{options.part}': {options.out / NAME}.html"
    )
