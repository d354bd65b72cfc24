"""`python -m tumorseg_benchmarks.mutants`: which command refuses the bugs that happen, and only those?"""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tumorseg_benchmarks.mutants.bugs.catalogue import EQUIVALENT, MUTANTS
from tumorseg_benchmarks.mutants.mutant import Mutant
from tumorseg_benchmarks.mutants.negative_controls import (
    FEWEST,
    NegativeControl,
    all_controls,
    missing_backends,
)
from tumorseg_benchmarks.mutants.table import network_facts, summary_table, to_markdown, to_values
from tumorseg_benchmarks.mutants.testbed import TestBed, make_test_bed
from tumorseg_benchmarks.mutants.trial import OURS, ControlResult, MutantResult, try_controls, try_mutants
from tumorseg_benchmarks.reports.report import SCHEMA, to_json, write_report
from tumorseg_benchmarks.variants.machine import load_average, machine_facts
from tumorseg_runtime.cli.main import one_line_errors
from tumorseg_runtime.core.errors import BackendError, ParityError
from tumorseg_runtime.core.files import write_bytes
from tumorseg_runtime.core.records import Format

WORKERS = 2
_FORMAT = Format("result of a worker", "run it again")
Share = tuple[list[MutantResult], list[MutantResult], list[ControlResult]]


@click.command()
@click.option(
    "--out",
    default=Path("build/mutants"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for mutants.json and mutants.md.",
)
@click.option("--only", multiple=True, help="Only mutants with this in their name or kind; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print mutants.json instead of the summary.")
@click.option("--share", type=int, hidden=True, help="For a worker: which part of the list it takes.")
@click.option("--bed", type=click.Path(path_type=Path), hidden=True, help="For a worker: the test bed.")
def mutants(out: Path, only: tuple[str, ...], as_json: bool, share: int | None, bed: Path | None) -> None:
    """Break deployments on purpose, and see which command refuses them, beside the criteria of others.

    Three small networks are trained on phantoms and exported for every backend; two processes share the
    list. The exit status is 1 where a bug survives `verify` that a device can see, or any survives
    `parity --run`, or where a correct artefact raises an alarm.
    """
    if missing := missing_backends():
        reasons = "; ".join(f"{backend}: {reason}" for backend, reason in missing.items())
        raise BackendError(f"{reasons}; expected every backend for the CPU: pip install 'tumorseg[dev,cpu]'")
    started, before = time.perf_counter(), load_average()
    if share is not None and bed is not None:
        click.echo(to_json(_work(only, share, bed)), nl=False)
        return
    with tempfile.TemporaryDirectory(prefix="tumorseg-mutants-") as folder:
        test_bed = make_test_bed(Path(folder), log=lambda line: click.echo(line, err=True))
        bed = Path(folder) / "bed.pickle"
        write_bytes(bed, pickle.dumps(test_bed), durable=False)
        networks = network_facts(test_bed)
        shares = _run_workers(only, bed)
    broken, equivalent, controls = (
        [one for part in parts for one in part] for parts in list(zip(*shares, strict=True))[:3]
    )
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "mutants",
        "machine": machine_facts(),
        "load_average": {"before": before, "after": load_average()},
        "seconds": round(time.perf_counter() - started, 1),
        **to_values(networks, broken, equivalent, controls),
    }
    write_report(out, "mutants", values, to_markdown(broken, equivalent, controls, values))
    click.echo(to_json(values) if as_json else summary_table(broken, controls).to_text(), nl=False)
    click.echo(f"report: {out}/mutants.md, {out}/mutants.json", err=True)
    problems = problems_of(broken, equivalent, controls)
    if len(controls) < FEWEST and not only:
        problems.append(f"{len(controls)} correct artefacts, expected at least {FEWEST}")
    if problems:
        raise ParityError(f"{len(problems)} trials failed, expected none: {'; '.join(problems)}")


def _chosen(only: tuple[str, ...]) -> tuple[list[Mutant], list[Mutant]]:
    """The mutants and the equivalent ones whose name or kind has one of the words."""

    def fits(one: Mutant) -> bool:
        return not only or any(word in (one.kind, *one.name.split(" ")) or word in one.name for word in only)

    return [one for one in MUTANTS if fits(one)], [one for one in EQUIVALENT if fits(one)]


def _work(only: tuple[str, ...], share: int, bed: Path) -> dict[str, Any]:
    """The results of one worker, as plain values by place in the lists. bed: a pickle of this command's."""
    started = time.perf_counter()

    def log(line: str) -> None:
        click.echo(f"{time.perf_counter() - started:4.0f} s  {line}", err=True)

    test_bed: TestBed = pickle.loads(bed.read_bytes())
    broken, equivalent = (one[share::WORKERS] for one in _chosen(only))
    controls = [] if only else all_controls(test_bed)[share::WORKERS]
    return {
        "broken": [one.to_dict() for one in try_mutants(test_bed, broken, log)],
        "equivalent": [one.to_dict() for one in try_mutants(test_bed, equivalent, log)],
        "controls": [
            {"control": dataclasses.asdict(one.control), "alarms": one.alarms}
            for one in try_controls(test_bed, controls, log)
        ],
    }


def _run_workers(only: tuple[str, ...], bed: Path) -> list[Share]:
    """Start the workers, and read what each found."""
    words = [argument for word in only for argument in ("--only", word)]
    command = [sys.executable, "-m", "tumorseg_benchmarks.mutants", *words, "--bed", str(bed), "--share"]
    workers = [
        subprocess.Popen([*command, str(share)], stdout=subprocess.PIPE, text=True)
        for share in range(WORKERS)
    ]
    shares = []
    by_name = {one.name: one for one in (*MUTANTS, *EQUIVALENT)}
    for worker in workers:
        text, _ = worker.communicate()
        if worker.returncode:
            raise BackendError(f"a worker ended with status {worker.returncode}: see its messages above")
        found = _FORMAT.parse(text, "a worker's answer")
        broken, equivalent = (
            [MutantResult.from_dict(by_name[one["name"]], one) for one in found[name]]
            for name in ("broken", "equivalent")
        )
        controls = [
            ControlResult(NegativeControl(**one["control"]), one["alarms"]) for one in found["controls"]
        ]
        shares.append((broken, equivalent, controls))
    return shares


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
