"""`python -m tumorseg_benchmarks.mutants`: does the gate see the bugs that happen, and only those?"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tumorseg_benchmarks.mutants.catalogue import EQUIVALENT, MUTANTS
from tumorseg_benchmarks.mutants.negative_controls import FEWEST, all_controls, missing_backends
from tumorseg_benchmarks.mutants.table import summary_table, to_markdown, to_values
from tumorseg_benchmarks.mutants.testbed import make_test_bed
from tumorseg_benchmarks.mutants.trial import OURS, ControlResult, MutantResult, try_controls, try_mutants
from tumorseg_benchmarks.reports.report import SCHEMA, to_json, write_report
from tumorseg_benchmarks.variants.machine import load_average, machine_facts
from tumorseg_runtime.cli.main import one_line_errors
from tumorseg_runtime.core.errors import BackendError, ParityError


@click.command()
@click.option(
    "--out",
    default=Path("build/mutants"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for mutants.json and mutants.md.",
)
@click.option("--json", "as_json", is_flag=True, help="Print mutants.json instead of the summary.")
def mutants(out: Path, as_json: bool) -> None:
    """Break deployments on purpose, and see who notices: our gate, and the criteria of others.

    Two small networks are trained on phantoms and exported for every backend. The exit status is 1 where a
    bug survives `verify` that a device can see, or any survives `parity --run`, or where a correct artefact
    raises an alarm.
    """
    if missing := missing_backends():
        reasons = "; ".join(f"{backend}: {reason}" for backend, reason in missing.items())
        raise BackendError(f"{reasons}; expected every backend for the CPU: pip install 'tumorseg[dev,cpu]'")
    started, before = time.perf_counter(), load_average()

    def log(line: str) -> None:
        click.echo(f"{time.perf_counter() - started:4.0f} s  {line}", err=True)

    with tempfile.TemporaryDirectory(prefix="tumorseg-mutants-") as folder:
        test_bed = make_test_bed(Path(folder), log=log)
        broken = list(try_mutants(test_bed, MUTANTS, log))
        equivalent = list(try_mutants(test_bed, EQUIVALENT, log))
        controls = list(try_controls(test_bed, all_controls(test_bed), log))
        found = to_values(test_bed, broken, equivalent, controls)
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "mutants",
        "machine": machine_facts(),
        "load_average": {"before": before, "after": load_average()},
        "seconds": round(time.perf_counter() - started, 1),
        **found,
    }
    write_report(out, "mutants", values, to_markdown(broken, equivalent, controls, values))
    click.echo(to_json(values) if as_json else summary_table(broken, controls).to_text(), nl=False)
    click.echo(f"report: {out}/mutants.md, {out}/mutants.json", err=True)
    problems = problems_of(broken, equivalent, controls)
    if len(controls) < FEWEST:
        problems.append(f"{len(controls)} correct artefacts, expected at least {FEWEST}")
    if problems:
        raise ParityError(
            f"{len(problems)} of the gate's trials failed, expected none: {'; '.join(problems)}"
        )


def problems_of(
    broken: Sequence[MutantResult], equivalent: Sequence[MutantResult], controls: Sequence[ControlResult]
) -> list[str]:
    """Bugs that live, and right things that our gate refuses, one line each."""
    lines = [
        f"{result.mutant.name}: survives {command}"
        for result in broken
        for command in ("verify", "parity --run")
        if command not in result.levels and not (command == "verify" and result.mutant.beyond)
    ]
    lines += [
        f"{result.mutant.name}: refused, and changes nothing" for result in equivalent if result.findings
    ]
    return lines + [f"{one.control.name}: {one.alarms[OURS]}" for one in controls if one.alarms[OURS]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; turn the project's own errors into one line and an exit status."""
    with one_line_errors():
        mutants.main(arguments, prog_name="python -m tumorseg_benchmarks.mutants")


if __name__ == "__main__":
    main()
