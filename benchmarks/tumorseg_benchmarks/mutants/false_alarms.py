"""`python -m tumorseg_benchmarks.mutants.false_alarms`: what do the commands say of artefacts that are right?

The mutants' three networks, with the weights of two epochs and at three sizes, are exported with every target
that runs on any CPU. What export itself says, the quick self-test, `verify` (which a full
self-test and `install` ask, too) and `parity --run` (which asks what `parity` does) are held against every
artefact: a refusal is a false alarm. What a backend does around a network is no property of an artefact:
the conformance files go through it once for each backend, precision and number of channels.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from tumorseg_benchmarks.mutants.by_command import conformance_once
from tumorseg_benchmarks.mutants.testbed import (
    CHOSEN,
    CONTRACT,
    PICKLE,
    Size,
    TestBed,
    make_test_bed,
    read_test_bed,
    write_run,
    write_test_bed,
)
from tumorseg_benchmarks.parity.parity import check_parity
from tumorseg_benchmarks.reports.report import SCHEMA, to_json
from tumorseg_benchmarks.variants.machine import machine_facts
from tumorseg_export.bundle.export import export_run
from tumorseg_export.targets.registry import TARGETS
from tumorseg_export.targets.validate_parity import BreachError
from tumorseg_runtime.backends import BACKENDS, has_artefact, why_unavailable
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.cli.main import one_line_errors
from tumorseg_runtime.cli.terminal import say, say_text
from tumorseg_runtime.core.errors import ParityError, TumorsegError
from tumorseg_runtime.core.files import make_folder, write_text
from tumorseg_runtime.core.records import Format
from tumorseg_runtime.inference.segmenter import Segmenter, door_of
from tumorseg_runtime.parity.failures import Failures
from tumorseg_runtime.parity.verify import REFUSED, verify_bundle
from tumorseg_train.data.split import SPLIT, Manifest
from tumorseg_train.networks.run import Run

SIZES = ((64, 96), (96, 64), (96, 128))  # height, width; they were trained at the first
TRIED = (*CHOSEN, *(name for name, target in TARGETS.items() if target.judged))
GOLDEN, CALIBRATION, LIMIT = 6, 12, 8
FILE = "false_alarms.json"
_FORMAT = Format("result of an earlier run of this command", "give another --out")


@dataclasses.dataclass(frozen=True)
class Artefact:
    """One right artefact under one backend: file, precision, and what each command says against it."""

    network: str
    backend: str
    precision: str
    file: str
    alarms: tuple[str, ...]


def networks(bed: TestBed, folder: Path) -> Iterator[Run]:
    """Runs of the bed's networks, as they are at the end and as they were before, at every size."""
    for name, network in bed.networks.items():
        manifest = Manifest.read(network.run.root / SPLIT, Path(network.run.data["root"]))
        for epoch, model in (("last", network.model), ("earlier", network.earlier)):
            for height, width in SIZES:
                root = folder / f"{name}-{epoch}-{height}x{width}"
                contract = dataclasses.replace(CONTRACT, height=height, width=width)
                yield write_run(name, model, manifest, root, network.run.training["passes"], contract)


def tried(run: Run, folder: Path) -> tuple[list[Artefact], dict[str, str]]:
    """Every artefact of a run with its alarms, and targets that were not made, with the reason.

    A target that the search for its precision gives up, or one that is judged by its Dice and its time and
    falls short, is no right artefact; what was made and is then refused for its parity is an alarm.
    """
    alarms: list[tuple[str, str, str]] = []
    not_made: dict[str, str] = {}
    refused: dict[tuple[str, str], str] = {}  # files that were not sealed

    def refuse(name: str, error: TumorsegError) -> None:
        if isinstance(error, BreachError) and not TARGETS[name].judged:
            report = error.report
            refused[report.backend, report.precision] = report.artefact
            alarms.append((report.backend, report.precision, f"export: {error}"))
        else:
            not_made[name] = str(error)

    bundle = export_run(
        run,
        folder / "bundle",
        targets=TRIED,
        golden=GOLDEN,
        calibration=CALIBRATION,
        refuse=refuse,
    )
    served = list(served_by(bundle))
    alarms += [(*key, line) for key in served for line in self_test(bundle, *key)]
    found = verify_bundle(bundle.root, door_of)
    alarms += [
        (one.backend, one.precision, f"verify: {one.detail}") for one in found.checks if one.status == REFUSED
    ]
    alarms += [("", "", f"verify: {line}") for line in found.problems]
    for row in check_parity(bundle, run, "test", LIMIT):
        if row.status == REFUSED:
            key = row.variant.engine, row.variant.precision
            alarms += [(*key, f"parity --run: {row.images}: {line}") for line in row.breaches]
    artefacts = []
    for key in dict.fromkeys((*served, *(alarm[:2] for alarm in alarms))):
        file = refused.get(key) or file_of(bundle, *key)
        lines = tuple(line for *other, line in alarms if tuple(other) == key)
        artefacts.append(Artefact(run.root.name, *key, file, lines))
    return artefacts, not_made


def served_by(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Every backend and precision that opens one of the bundle's artefacts on this CPU."""
    for backend, spec in BACKENDS.items():
        if "cpu" in spec.devices and why_unavailable(backend, "cpu") is None:
            for precision in sorted({one.precision for one in bundle.artefacts}):
                if has_artefact(bundle, backend, precision, None):
                    yield backend, precision


def file_of(bundle: Bundle, backend: str, precision: str) -> str:
    """The artefact's file; empty for one that was not sealed."""
    formats = BACKENDS[backend].formats if backend in BACKENDS else ()
    fitting = (one.file for one in bundle.artefacts if one.precision == precision and one.format in formats)
    return next(fitting, "")


def self_test(bundle: Bundle, backend: str, precision: str) -> Iterable[str]:
    """What the quick self-test says against an artefact."""
    try:
        Segmenter.open(bundle, backend=backend, precision=precision, self_test="quick").close()
    except TumorsegError as error:
        yield f"self-test: {error}"


def summary(artefacts: list[Artefact], not_made: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Counts for people: an artefact is a file; one that two backends serve is tried under both."""
    files = {(one.network, one.file) for one in artefacts}
    refused = {(one.network, one.file) for one in artefacts if one.alarms}
    failures = Failures(len(files), len(refused))
    return {
        "networks": len({one.network for one in artefacts}),
        "artefacts": len(files),
        "under_backends": len(artefacts),
        "false_alarms": failures.to_dict(),
        "not_made": sum(map(len, not_made.values())),
    }


@click.command()
@click.option(
    "--out", default=Path("build/false-alarms"), show_default=True, type=click.Path(path_type=Path),
    help="Folder for false_alarms.json; what it holds from before is not asked again.",
)  # fmt: skip
@click.option(
    "--bed", "kept", type=click.Path(path_type=Path), help="The mutants' test bed; made here where it is not."
)
def main(out: Path, kept: Path | None) -> None:
    """Count how often export, self-test, verify and parity --run refuse an artefact that is right."""
    with one_line_errors():
        started, before = time.perf_counter(), os.times()
        bed = kept or out / "bed"
        for folder in (out, bed):
            make_folder(folder)
        if not (bed / PICKLE).exists():
            write_test_bed(make_test_bed(bed, Size(targets=("onnx",)), log=lambda line: say(line, err=True)))
        values: dict[str, Any] = {"runs": {}, "seconds": 0.0, "cpu_seconds": 0.0}
        if (out / FILE).exists():
            values = {name: one for name, one in _FORMAT.read(out / FILE).items() if name in values}
        spent = values["seconds"], values["cpu_seconds"]
        runs: dict[str, Any] = values["runs"]
        with conformance_once({}), tempfile.TemporaryDirectory() as scratch:
            for run in networks(read_test_bed(bed), Path(scratch)):
                name = run.root.name
                if name in runs:
                    continue
                artefacts, not_made = tried(run, Path(scratch))
                runs[name] = {
                    "artefacts": [dataclasses.asdict(one) for one in artefacts],
                    "not_made": not_made,
                }
                alarms = [line for one in artefacts for line in one.alarms]
                say(f"{name}: {len(artefacts)} artefacts, {len(alarms)} alarms", err=True)
                values["seconds"] = round(spent[0] + time.perf_counter() - started, 1)
                cpu = sum(now - then for now, then in zip(os.times()[:4], before[:4], strict=True))
                values["cpu_seconds"] = round(spent[1] + cpu, 1)
                _write(out, values)
        found = _write(out, values)
        say_text(to_json(found["summary"]))
        if count := found["summary"]["false_alarms"]["failed"]:
            raise ParityError(f"{count} right artefacts were refused, expected none: see {out / FILE}")


def _write(out: Path, values: dict[str, Any]) -> dict[str, Any]:
    runs = values["runs"]
    artefacts = [
        Artefact(**{**one, "alarms": tuple(one["alarms"])})
        for run in runs.values()
        for one in run["artefacts"]
    ]
    found = {
        "schema": SCHEMA,
        "kind": "false-alarms",
        "machine": machine_facts(),
        "summary": summary(artefacts, {name: run["not_made"] for name, run in runs.items()}),
        **values,
    }
    write_text(out / FILE, to_json(found))
    return found


if __name__ == "__main__":
    main()
