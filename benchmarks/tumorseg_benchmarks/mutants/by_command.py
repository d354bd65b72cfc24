"""What each command of a user says about a broken device.

Nothing here compares: each column calls what the command calls.

    export          the artefact is validated before a bundle is sealed
    self-test       Segmenter.open(..., self_test="quick")
    verify          tumorseg verify
    parity          tumorseg parity
    parity --run    tumorseg parity --run
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from tumorseg_benchmarks.mutants.mutant import Device
from tumorseg_benchmarks.mutants.testbed import BedNetwork
from tumorseg_benchmarks.parity.findings import Findings, score_bundle
from tumorseg_benchmarks.parity.fp16_reference import PRECISION
from tumorseg_benchmarks.parity.parity import CONFORMANCE, ReferenceSet, check_provenance, compare
from tumorseg_benchmarks.parity.preprocess_paths import REFUSED
from tumorseg_benchmarks.variants.variants import PYTORCH, VARIANTS
from tumorseg_export.targets.registry import TARGETS
from tumorseg_export.targets.validate_parity import FOLDER, validate_parity
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import TumorsegError
from tumorseg_runtime.core.session import Session
from tumorseg_runtime.inference.segmenter import CONFORMANCE_BAND, Segmenter, door_of
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.reference import load_golden
from tumorseg_runtime.parity.replay import full_plan, replay
from tumorseg_runtime.parity.verify import verify_bundle

COMMANDS = ("export", "self-test", "verify", "parity", "parity --run")
ON_THE_DEVICE = ("golden", CONFORMANCE)  # sets of images that parity has without a run
LIMIT = 8  # images of the split


@dataclasses.dataclass(frozen=True)
class Detection:
    """One reason why a device must not serve: the command that said it, and its line."""

    level: str
    line: str


def detect(device: Device, network: BedNetwork) -> list[Detection]:
    """All that the commands find wrong with a device; empty for one that may serve."""
    columns: dict[str, Callable[[], Iterable[str]]] = {
        "export": partial(_export, device),
        "self-test": partial(_self_test, device),
        "verify": partial(_verify, device),
    }
    found = [one for name, run in columns.items() for one in _at(name, run)]
    return found + _parity(device, network)


def _export(device: Device) -> Iterable[str]:
    """A copy of the bundle without certificates is validated again, as the exporter does before the seal."""
    artefact = device.bundle.artefact(device.format, device.precision)
    target = next(name for name in TARGETS if name in (device.format, f"{device.format}-{device.precision}"))
    if device.precision == PRECISION:
        target = f"{device.format}-{PRECISION}"
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "draft"
        shutil.copytree(
            device.bundle.root, root, copy_function=os.link, ignore=shutil.ignore_patterns(FOLDER)
        )
        draft = device.bundle.draft(root=root)
        validate_parity(draft, artefact, TARGETS[target])
    return ()


def _self_test(device: Device) -> Iterable[str]:
    Segmenter.open(device.bundle.root, backend=device.backend, precision=device.precision, self_test="quick")
    if device.folder is not None:
        Segmenter.open(
            device.bundle.root, backend="auto", precision=device.precision, device_folder=device.folder
        )
    return ()


def _verify(device: Device) -> Iterable[str]:
    found = verify_bundle(
        device.bundle.root, door_of, backend=device.backend, device="cpu", precision=device.precision,
        device_folder=device.folder,
    )  # fmt: skip
    return (*found.problems, *(check.detail for check in found.checks if check.status == "refused"))


def _parity(device: Device, network: BedNetwork) -> list[Detection]:
    """Both columns from one run: what parity has without `--run` is a part of what it has with it."""
    variants = [
        VARIANTS[0],
        *(
            one
            for one in VARIANTS
            if (one.engine, one.device, one.precision) == (device.backend, "cpu", device.precision)
        ),
    ]
    try:
        problems = device.bundle.problems()  # the command opens the bundle
        if problems:
            return [Detection(name, problems[0]) for name in COMMANDS[3:]]
        check_provenance(device.bundle, network.run)
        found = score_bundle(
            device.bundle, network.run, "test", LIMIT, variants=variants, device_folder=device.folder
        )
    except TumorsegError as error:
        return [Detection(COMMANDS[4], str(error))]
    return [
        *(Detection(COMMANDS[3], line) for line in _lines(found, device, ON_THE_DEVICE)),
        *(Detection(COMMANDS[4], line) for line in _lines(found, device, None)),
    ]


def _lines(found: Findings, device: Device, sets: tuple[str, ...] | None) -> Iterable[str]:
    yield from found.folder_problems
    for check in found.vectors:
        if check.status == REFUSED:
            yield f"{check.path}: {check.vector}: {check.reason}"
    for row in found.rows:
        if row.variant.engine not in (PYTORCH, device.backend):
            continue
        if sets is None or (row.images in sets and row.variant.engine != PYTORCH):
            yield from row.breaches


def alarms(session: Session, network: BedNetwork, device: Device, batch_size: int) -> list[Detection]:
    """What is found wrong with an open session of a right artefact; anything is a false alarm."""
    contract, info = device.bundle.contract, session.info
    door = Segmenter(contract, session, batch_size, band=CONFORMANCE_BAND)

    def golden() -> Iterable[str]:
        plan = full_plan(batch_size)
        return replay(
            door, load_golden(device.bundle), BUDGETS[info.precision], plan, artefact="artefact"
        ).breaches

    sets = (network.split, *((network.rounded,) if device.precision == PRECISION else ()))
    return [
        *_at("golden images", golden),
        *(
            one
            for reference in sets
            for one in _at(reference.name, partial(_compare, session, reference, contract, batch_size))
        ),
    ]


def _compare(session: Session, reference: ReferenceSet, contract: Contract, size: int) -> Iterable[str]:
    return compare(session, "artefact", reference, contract, size).breaches


def _at(level: str, run: Callable[[], Iterable[str]]) -> list[Detection]:
    """What a command says; an error of the project is its refusal."""
    try:
        return [Detection(level, line) for line in run()]
    except TumorsegError as error:
        return [Detection(level, str(error))]
