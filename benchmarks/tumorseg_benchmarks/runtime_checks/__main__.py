"""`python -m tumorseg_benchmarks.runtime_checks BUNDLE`: does the runtime keep what it promises?

Ratios, each from one interleaved run, so that they hold on other machines as well: what the runtime adds to
bare inference in time and in memory, what importing it costs, and how fast its preprocessing is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from tumorseg_benchmarks.latency.latency import MIN_ROUNDS, TimingPlan
from tumorseg_benchmarks.reports.figure import Figure
from tumorseg_benchmarks.reports.report import (
    SCHEMA,
    figures_markdown,
    figures_text,
    to_json,
    variant_facts,
    write_report,
)
from tumorseg_benchmarks.runtime_checks.end_to_end import measure_end_to_end
from tumorseg_benchmarks.runtime_checks.install_size import measure_install
from tumorseg_benchmarks.runtime_checks.memory import measure_growth, measure_peak
from tumorseg_benchmarks.runtime_checks.preprocessing import measure_preprocessing
from tumorseg_benchmarks.runtime_checks.start_up import measure_imports
from tumorseg_benchmarks.runtime_checks.throughput import measure_throughput
from tumorseg_benchmarks.variants.machine import load_average, machine_facts, set_threads, usable_cores
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.cli.main import one_line_errors
from tumorseg_runtime.cli.terminal import say, say_text

SECTIONS = ("end-to-end", "import", "peak", "growth", "throughput", "preprocessing", "install")
QUICK_FILES, QUICK_PREDICTIONS = 2 * MIN_ROUNDS, 200


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--only", multiple=True, type=click.Choice(SECTIONS), help="Only this section, may be repeated."
)
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(min=MIN_ROUNDS), help="Rounds.")
@click.option(
    "--files", default=200, show_default=True, type=click.IntRange(min=1), help="Of the throughput."
)
@click.option(
    "--predictions", default=2000, show_default=True, type=click.IntRange(min=20), help="Of the growth."
)
@click.option("--quick", is_flag=True, help=f"{MIN_ROUNDS} rounds, {QUICK_FILES} files: does it work at all?")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of inference [default: all cores].")
@click.option(
    "--out",
    default=Path("build/runtime-figures"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for runtime-figures.json and runtime-figures.md.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the JSON instead of the table.")
def figures(
    bundle: Path,
    only: tuple[str, ...],
    rounds: int,
    files: int,
    predictions: int,
    quick: bool,
    threads: int | None,
    out: Path,
    as_json: bool,
) -> None:
    """Measure the runtime on BUNDLE. A target that is missed is said, and is no error."""
    opened = Bundle.open(bundle)
    count = threads or usable_cores()
    set_threads(count, torch_too=False)
    if quick:
        rounds, files, predictions = MIN_ROUNDS, QUICK_FILES, QUICK_PREDICTIONS

    def log(line: str) -> None:
        say(line, err=True)

    plan, at_once = TimingPlan(rounds), TimingPlan(rounds, settle_s=0.0)
    measures: dict[str, Callable[[], list[Figure]]] = {
        "end-to-end": lambda: measure_end_to_end(opened, count, plan, log),
        "import": lambda: measure_imports(at_once, log),
        "peak": lambda: measure_peak(opened, count, log),
        "growth": lambda: measure_growth(opened, count, predictions, log),
        "throughput": lambda: measure_throughput(opened, count, files, TimingPlan(min(rounds, 10)), log),
        "preprocessing": lambda: measure_preprocessing(opened, at_once, log),
        "install": measure_install,
    }
    before = load_average()
    found = {name: measures[name]() for name in SECTIONS if not only or name in only}
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "runtime-figures",
        "machine": machine_facts(),
        "load_average": {"before": before, "after": load_average()},
        **variant_facts(opened, None),
        "plan": {"rounds": rounds, "files": files, "predictions": predictions, "threads": count},
        "sections": {name: [figure.to_dict() for figure in rows] for name, rows in found.items()},
    }
    write_report(out, "runtime-figures", values, figures_markdown(found, values))
    say_text(to_json(values) if as_json else figures_text(found, values), nl=False)
    log(f"report: {out}/runtime-figures.md, {out}/runtime-figures.json")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; turn the project's own errors into one line and an exit status."""
    with one_line_errors():
        figures.main(arguments, prog_name="python -m tumorseg_benchmarks.runtime_checks")


if __name__ == "__main__":
    main()
