"""What each command of a user says about a broken device.

Nothing here compares: each column calls what the command calls, and stops at its first refusal.

    export          the artefact is validated before a bundle is sealed
    self-test       Segmenter.open(..., self_test="quick")
    verify          tumorseg verify
    parity          tumorseg parity
    parity --run    tumorseg parity --run; it does all that `parity` does, and is run where that accepts
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from tumorseg_benchmarks.mutants.mutant import Device
from tumorseg_benchmarks.mutants.testbed import BedNetwork
from tumorseg_benchmarks.parity import deploy_parity, parity
from tumorseg_benchmarks.parity.fp16_reference import PRECISION
from tumorseg_benchmarks.parity.parity import check_provenance, compare
from tumorseg_benchmarks.parity.preprocess_paths import PATHS, REFUSED, check_vectors
from tumorseg_benchmarks.parity.references import ReferenceSet
from tumorseg_benchmarks.parity.rows import ParityRow
from tumorseg_benchmarks.variants.variants import VARIANTS
from tumorseg_export.targets.registry import TARGETS
from tumorseg_export.targets.validate_parity import FOLDER, validate_parity
from tumorseg_runtime.backends import MASK_BACKENDS
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import ParityError, TumorsegError
from tumorseg_runtime.core.session import Session
from tumorseg_runtime.images.frame import Spacing
from tumorseg_runtime.inference.segmenter import CONFORMANCE_BAND, Segmenter, door_of
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.check_prediction import Checker, Predicted
from tumorseg_runtime.parity.compare import ImageParity
from tumorseg_runtime.parity.conformance import Conformance, check_conformance
from tumorseg_runtime.parity.reference import Reference, load_golden
from tumorseg_runtime.parity.replay import full_plan, replay
from tumorseg_runtime.parity.verify import folder_problems, verify_bundle
from tumorseg_train.networks.run import Run

COMMANDS = ("export", "self-test", "verify", "parity", "parity --run")
LIMIT = 8  # images of the split


@dataclasses.dataclass(frozen=True)
class Detection:
    """One reason why a device must not serve: the command that said it, and its line."""

    level: str
    line: str


class FirstRefusal(Checker):
    """Raises ParityError at the first breach that nothing overrules: the command would refuse at its end."""

    def check(
        self,
        item: Reference,
        expected: tuple[str, tuple[Spacing, ...]],
        found: Predicted,
        call: str,
        *,
        written: bool = False,
    ) -> ImageParity:
        """As `Checker.check`."""
        return self._stop(super().check(item, expected, found, call, written=written))

    def failed(self, item: Reference, call: str, error: TumorsegError) -> ImageParity:
        """As `Checker.failed`."""
        return self._stop(super().failed(item, call, error))

    def _stop(self, image: ImageParity) -> ImageParity:
        for line in image.breaches:
            if line not in image.amounts:
                raise ParityError(f"{image.image}: {line}")
        return image


@contextlib.contextmanager
def conformance_once(known: dict[tuple[Any, ...], Conformance]) -> Iterator[None]:
    """The conformance files go through each backend once, whatever asks for them and for which artefact: what
    a backend does around a network is no property of an artefact. known: what they gave before."""

    def once(make: Any, *of: Any, full: bool, **options: Any) -> Conformance:
        key = (*of[:3], of[3].channels, full)
        if key not in known:
            known[key] = check_conformance(make, *of, full=full)
        return known[key]

    with (
        mock.patch("tumorseg_runtime.parity.verify.check_conformance", once),
        mock.patch("tumorseg_benchmarks.parity.parity.check_conformance", once),
    ):
        yield


_RIGHT: dict[tuple[Any, ...], Conformance] = {}  # of this process, whose code is right


def detect(
    device: Device, network: BedNetwork, known: dict[tuple[Any, ...], Conformance] | None = None
) -> list[Detection]:
    """The first thing that each command finds wrong with a device; empty for one that may serve.

    known: what the conformance files gave before. None: nothing where the bundle is the right one, so that
        the bug must be in the code; else what they gave in this process, as the artefact alone is wrong.
    """
    if known is None:
        known = {} if device.bundle is network.bundle else _RIGHT
    columns: dict[str, Callable[[], Iterable[str]]] = {
        "export": partial(_export, device),
        "self-test": partial(_self_test, device),
        "verify": partial(_verify, device),
        "parity": partial(_parity, device, network, None),
        "parity --run": partial(_parity, device, network, network.run),
    }
    with conformance_once(known), mock.patch("tumorseg_runtime.parity.replay.Checker", FirstRefusal):
        found = [one for name in COMMANDS[:4] for one in _at(name, columns[name])[:1]]
        within = [Detection(COMMANDS[4], one.line) for one in found if one.level == COMMANDS[3]]
        return found + (within or _at(COMMANDS[4], columns[COMMANDS[4]])[:1])


def _export(device: Device) -> Iterable[str]:
    """A copy of the bundle without certificates is validated again, as the exporter does before the seal."""
    artefact = device.bundle.artefact(device.format, device.precision)
    target = next(name for name in TARGETS if name in (device.format, f"{device.format}-{device.precision}"))
    if device.precision != "fp32":
        target = f"{device.format}-{device.precision}"
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "draft"
        shutil.copytree(
            device.bundle.root, root, copy_function=os.link, ignore=shutil.ignore_patterns(FOLDER)
        )
        draft = device.bundle.draft(root=root)
        # the bed has no images that judge INT8 by its Dice and its time
        validate_parity(draft, artefact, dataclasses.replace(TARGETS[target], judged=False))
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


class _Refused(Exception):
    """A row of `parity` was refused: its breaches."""


def _parity(device: Device, network: BedNetwork, run: Run | None) -> Iterable[str]:
    """What `score_bundle` asks, the golden vectors last: they cost most and see least."""
    variants = [
        VARIANTS[0],
        *(
            one
            for one in VARIANTS
            if (one.engine, one.device, one.precision) == (device.backend, "cpu", device.precision)
        ),
    ]
    if problems := device.bundle.problems():  # the command opens the bundle
        return problems
    if run is not None:
        check_provenance(device.bundle, run)
    if device.folder is not None and (lines := list(folder_problems(device.bundle, device.folder))):
        return lines
    with contextlib.ExitStack() as stack:
        for name in ("score", "conformance_row"):
            stack.enter_context(mock.patch.object(parity, name, _until_refused(getattr(parity, name))))
        forms = tuple(one for one in MASK_BACKENDS if one == device.backend)
        stack.enter_context(mock.patch.object(deploy_parity, "MASK_BACKENDS", forms))
        try:
            rows = parity.check_parity(
                device.bundle, run, "test", LIMIT, variants=variants, device_folder=device.folder
            )
        except _Refused as refused:
            return tuple(refused.args)
    if lines := [line for row in rows for line in row.breaches]:
        return lines
    return () if run is not None else _vectors()  # with a run they have been asked without it


def _until_refused(ask: Callable[..., ParityRow]) -> Callable[..., ParityRow]:
    """The same question, which raises where the answer is a refusal."""

    def asked(*arguments: Any) -> ParityRow:
        row = ask(*arguments)
        if row.breaches:
            raise _Refused(*row.breaches)
        return row

    return asked


def _vectors() -> Iterable[str]:
    for name, path in PATHS.items():
        for check in check_vectors({name: path}):
            if check.status == REFUSED:
                return [f"{check.path}: {check.vector}: {check.reason}"]
    return []


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
