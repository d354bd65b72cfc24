"""`python -m tumorseg_benchmarks.mutants`: which command refuses the bugs that happen, and only those?"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tumorseg_benchmarks.mutants.catalogue import EQUIVALENT, MUTANTS
from tumorseg_benchmarks.mutants.mutant import Mutant
from tumorseg_benchmarks.mutants.negative_controls import (
    FEWEST,
    NegativeControl,
    all_controls,
    missing_backends,
)
from tumorseg_benchmarks.mutants.table import network_facts, summary_table, to_markdown, to_values
from tumorseg_benchmarks.mutants.testbed import (
    DEEPLAB,
    FOR_BUGS,
    PICKLE,
    UNET,
    Size,
    make_test_bed,
    read_test_bed,
    write_test_bed,
)
from tumorseg_benchmarks.mutants.trial import OURS, ControlResult, MutantResult, try_controls, try_mutants
from tumorseg_benchmarks.reports.report import SCHEMA, to_json, write_report
from tumorseg_benchmarks.variants.machine import load_average, machine_facts
from tumorseg_runtime.cli.main import one_line_errors
from tumorseg_runtime.cli.terminal import say, say_text
from tumorseg_runtime.core.errors import BackendError, ParityError
from tumorseg_runtime.core.files import make_folder, write_text
from tumorseg_runtime.core.records import Format

WORKERS = 2
SHARE = "share-{}.json"
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
@click.option("--bugs", "bugs_alone", is_flag=True, help="Only the bugs, no correct artefacts.")
@click.option(
    "--bed", "kept", type=click.Path(path_type=Path), help="Make the test bed here, or take the one that is."
)
@click.option("--resume", is_flag=True, help="Go on with what a run that was broken off has left in --out.")
@click.option("--json", "as_json", is_flag=True, help="Print mutants.json instead of the summary.")
@click.option("--share", type=int, hidden=True, help="For a worker: which part of the list it takes.")
def mutants(
    out: Path,
    only: tuple[str, ...],
    bugs_alone: bool,
    kept: Path | None,
    resume: bool,
    as_json: bool,
    share: int | None,
) -> None:
    """Break deployments on purpose, and see which command refuses them, beside the criteria of others.

    Three small networks are trained on phantoms and exported for every backend; two processes share the
    list, and what they have found so far lies in OUT/share-0.json and share-1.json. The exit status is 1
    where a bug survives `verify` that a device can see, or any survives `parity --run`, or where a correct
    artefact raises an alarm.
    """
    if missing := missing_backends():
        reasons = "; ".join(f"{backend}: {reason}" for backend, reason in missing.items())
        raise BackendError(f"{reasons}; expected every backend for the CPU: pip install 'tumorseg[dev,cpu]'")
    started, before = time.perf_counter(), load_average()
    if share is not None and kept is not None:
        _work(only, share, kept, out, bugs_alone=bugs_alone)
        return
    with tempfile.TemporaryDirectory(prefix="tumorseg-mutants-") as folder:
        bed = kept or Path(folder) / "bed"
        if not (bed / PICKLE).exists():
            make_folder(bed)
            size = Size(targets=FOR_BUGS, networks=(UNET, DEEPLAB)) if bugs_alone else Size()
            write_test_bed(make_test_bed(bed, size, log=lambda line: say(line, err=True)))
        networks = network_facts(read_test_bed(bed))
        words = [argument for word in only for argument in ("--only", word)]
        shares = _run_workers([*words, *(["--bugs"] if bugs_alone else [])], bed, out, resume=resume)
    broken, equivalent, controls = (
        [one for part in parts for one in part] for parts in list(zip(*shares, strict=True))[:3]
    )
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "mutants",
        "machine": machine_facts(),
        "load_average": {"before": before, "after": load_average()},
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(sum(os.times()[:4]), 1),
        **to_values(networks, broken, equivalent, controls),
    }
    write_report(out, "mutants", values, to_markdown(broken, equivalent, controls, values))
    say_text(to_json(values) if as_json else summary_table(broken, controls).to_text(), nl=False)
    say(f"report: {out}/mutants.md, {out}/mutants.json", err=True)
    problems = problems_of(broken, equivalent, controls)
    if len(controls) < FEWEST and not only and not bugs_alone:
        problems.append(f"{len(controls)} correct artefacts, expected at least {FEWEST}")
    if problems:
        raise ParityError(f"{len(problems)} trials failed, expected none: {'; '.join(problems)}")


def _chosen(only: tuple[str, ...]) -> tuple[list[Mutant], list[Mutant]]:
    """The mutants and the equivalent ones whose name or kind has one of the words."""

    def fits(one: Mutant) -> bool:
        return not only or any(word in (one.kind, *one.name.split(" ")) or word in one.name for word in only)

    return [one for one in MUTANTS if fits(one)], [one for one in EQUIVALENT if fits(one)]


def _work(only: tuple[str, ...], share: int, bed: Path, out: Path, *, bugs_alone: bool) -> None:
    """A worker's part of the lists; what is found so far lies in its file at any time."""
    started = time.perf_counter()

    def log(line: str) -> None:
        say(f"{time.perf_counter() - started:4.0f} s  {line}", err=True)

    test_bed = read_test_bed(bed)
    broken, equivalent = (one[share::WORKERS] for one in _chosen(only))
    controls = [] if only or bugs_alone else all_controls(test_bed)[share::WORKERS]
    path = out / SHARE.format(share)
    found: dict[str, list[dict[str, Any]]] = _FORMAT.read(path)
    for name, some in (("broken", broken), ("equivalent", equivalent)):
        done = {one["name"] for one in found[name]}
        for one in try_mutants(test_bed, [mutant for mutant in some if mutant.name not in done], log):
            found[name].append(one.to_dict())
            write_text(path, to_json(found), durable=False)
    for result in try_controls(test_bed, controls[len(found["controls"]) :], log):
        found["controls"].append({"control": dataclasses.asdict(result.control), "alarms": result.alarms})
        write_text(path, to_json(found), durable=False)


def _run_workers(arguments: Sequence[str], bed: Path, out: Path, *, resume: bool) -> list[Share]:
    """Start the workers, and read what each found."""
    make_folder(out)
    command = [sys.executable, "-m", "tumorseg_benchmarks.mutants", *arguments]
    command += ["--bed", str(bed), "--out", str(out), "--share"]
    for share in range(WORKERS):
        if not (resume and (out / SHARE.format(share)).exists()):
            write_text(out / SHARE.format(share), to_json({"broken": [], "equivalent": [], "controls": []}))
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # two processes with two threads each slow each other
    workers = [subprocess.Popen([*command, str(share)], env=alone) for share in range(WORKERS)]
    for status in [worker.wait() for worker in workers]:
        if status:
            raise BackendError(f"a worker ended with status {status}: see its messages above")
    return [_read(out / SHARE.format(share)) for share in range(WORKERS)]


def _read(path: Path) -> Share:
    """What a worker has found so far."""
    by_name = {one.name: one for one in (*MUTANTS, *EQUIVALENT)}
    found = _FORMAT.read(path)
    broken, equivalent = (
        [MutantResult.from_dict(by_name[one["name"]], one) for one in found[name]]
        for name in ("broken", "equivalent")
    )
    controls = [ControlResult(NegativeControl(**one["control"]), one["alarms"]) for one in found["controls"]]
    return broken, equivalent, controls


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
