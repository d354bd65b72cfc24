"""Is a bundle whole, and does this device decide with it as PyTorch did? Nothing is assumed: what could not
be run is reported as unverified, with the reason, and what failed as refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tumorseg_runtime.backends import BACKENDS, has_artefact, open_session, why_unavailable
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.conformance.guard_rule import refuse_other_guard
from tumorseg_runtime.core.backend import split_device
from tumorseg_runtime.core.errors import (
    BackendError,
    BundleError,
    CheckFailedError,
    InputError,
    ParityError,
)
from tumorseg_runtime.core.progress import Tell, part, silent
from tumorseg_runtime.core.session import LOGITS, STREAM, Session
from tumorseg_runtime.device.cache import find, read_ranking
from tumorseg_runtime.device.engines import OtherMachineError, engines_in, read_key
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.compare import ParityReport, summary
from tumorseg_runtime.parity.conformance import MakeDoor, check_conformance
from tumorseg_runtime.parity.reference import load_golden
from tumorseg_runtime.parity.replay import full_plan, quick_plan, replay

DEVICES = ("cpu", "cuda", "tensorrt", "gpu", "npu")  # what any backend may be asked for
PASSED, REFUSED, UNVERIFIED = "passed", "refused", "unverified"


@dataclasses.dataclass(frozen=True)
class Check:
    """One backend, device and precision. detail: figures, breaches, or why it was not run."""

    backend: str
    device: str
    precision: str
    status: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Verification:
    """problems: what differs from the seal; nothing is run where there are any."""

    bundle: str
    digest: str
    problems: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """True where the bundle is whole, something was run, and nothing was refused."""
        statuses = [check.status for check in self.checks]
        return not self.problems and PASSED in statuses and REFUSED not in statuses

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"passed": self.passed, **dataclasses.asdict(self)}


def self_test(bundle: Bundle, session: Session, make: MakeDoor, level: str, tell: Tell = silent) -> None:
    """Raise ParityError unless this device decides as PyTorch did, through the door that `make` builds.

    level: 'quick' or 'full' (docs/parity.md). tell: the share that is done.
    """
    lines = [
        line
        for report in _reports(bundle, session, make, tell, full=level == "full")
        for line in report.breaches
    ]
    if lines:
        raise ParityError(f"{bundle.root}: self-test failed, this device must not serve: {summary(lines)}")


def _reports(
    bundle: Bundle, session: Session, make: MakeDoor, tell: Tell, *, full: bool
) -> Iterator[ParityReport]:
    """The conformance network and the golden images."""
    info = session.info
    yield check_conformance(
        make, info.backend, info.device, info.precision, bundle.contract, full=full, tell=part(tell, 0, 2)
    ).report
    yield replay_golden(bundle, session, make, full=full, tell=part(tell, 1, 2))


def replay_golden(
    bundle: Bundle, session: Session, make: MakeDoor, *, full: bool, tell: Tell = silent
) -> ParityReport:
    """The golden images through the door, several batch sizes; on a GPU's stream once for their logits, and
    once for masks alone, as it serves."""
    info, golden = session.info, load_golden(bundle)
    name = f"{info.backend} {info.device} {info.precision}"
    reports = []
    ways = (True, False) if STREAM in session.input.memory and session.output == LOGITS else (True,)
    for number, logits in enumerate(ways):
        door = make(bundle, session, None, logits)
        refuse_other_guard(bundle, door.guard)
        plan = full_plan(door.batch_size) if full else quick_plan(door.batch_size)
        share = part(tell, number, len(ways))
        reports.append(replay(door, golden, BUDGETS[info.precision], plan, artefact=name, tell=share))
    images = tuple(image for report in reports for image in report.images)
    return dataclasses.replace(reports[0], images=images)


def verify_bundle(
    root: Path,
    make: MakeDoor,
    *,
    backend: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    device_folder: Path | None = None,
    public_key: Path | None = None,
    tell: Tell = silent,
) -> Verification:
    """Check every hash, then replay the conformance files and the golden images through the door.

    make: builds the door that serves on a session, `Segmenter` in a program of one's own.
    backend, device, precision: only these; None for all that the bundle has. A backend whose artefact the
        bundle lacks is reported only where it was asked for by name.
    public_key: as in `Bundle.open`.
    tell: the share of the checks that is done.
    Raises BundleError where there is no bundle at all, InputError for an unknown name, CheckFailedError
    where the signature is not the key's.
    """
    bundle = Bundle.read_index(root, public_key)
    if backend is not None and backend not in BACKENDS:
        raise InputError(f"backend is '{backend}', expected one of {', '.join(BACKENDS)}")
    if device is not None and split_device(device)[0] not in DEVICES:
        raise InputError(f"device is '{device}', expected one of {', '.join(DEVICES)}")
    known = dict.fromkeys(one for spec in BACKENDS.values() for one in spec.precisions)
    if precision is not None and precision not in known:
        raise InputError(f"precision is '{precision}', expected one of {', '.join(known)}")
    problems = tuple(bundle.problems())
    asked: list[tuple[str, str, str]] = []
    if not problems:
        folder = find(bundle) if device_folder is None else device_folder
        problems = tuple(folder_problems(bundle, folder)) if folder is not None else ()
    if not problems:
        precisions = sorted({artefact.precision for artefact in bundle.artefacts})
        asked = [
            (name, one, kind)
            for name in (BACKENDS if backend is None else (backend,))
            for one in (devices_of(name) if device is None else (device,))
            for kind in (precisions if precision is None else (precision,))
            if backend is not None
            or (split_device(one)[0] in BACKENDS[name].devices and has_artefact(bundle, name, kind, folder))
        ]
    able = [key for key in asked if why_unavailable(*key[:2]) is None]
    checks = tuple(
        _check(bundle, make, *key, folder, part(tell, able.index(key), len(able)) if key in able else silent)
        for key in asked
    )
    return Verification(bundle.name, bundle.digest(), problems, checks)


def folder_problems(bundle: Bundle, folder: Path) -> Iterator[str]:
    """A ranking of another bundle or device, and damaged engines, one line each. An engine of another bundle
    is no problem: it is never opened for this one."""
    try:
        read_ranking(folder, bundle)
    except BundleError as error:
        yield str(error)
    for path in engines_in(folder):
        try:
            read_key(path)
        except BundleError as error:
            yield str(error)


def devices_of(backend: str) -> list[str]:
    """The devices that a backend knows, whether this machine has them or not."""
    return [device for device in DEVICES if device in BACKENDS[backend].devices]


def _check(
    bundle: Bundle,
    make: MakeDoor,
    backend: str,
    device: str,
    precision: str,
    folder: Path | None,
    tell: Tell,
) -> Check:
    def found(status: str, detail: str) -> Check:
        return Check(backend, device, precision, status, detail)

    if reason := why_unavailable(backend, device):
        return found(UNVERIFIED, reason)
    if not has_artefact(bundle, backend, precision, folder):
        return found(UNVERIFIED, f"the bundle has no {precision} artefact for {backend}")
    try:
        session = open_session(
            bundle, backend=backend, device=device, precision=precision, device_folder=folder
        )
        halves = part(tell, 0, 2), part(tell, 1, 2)
        conformance = check_conformance(
            make, backend, device, precision, bundle.contract, full=True, tell=halves[0]
        )
        report = replay_golden(bundle, session, make, full=True, tell=halves[1])
    except OtherMachineError as error:
        return found(UNVERIFIED, str(error))
    except (CheckFailedError, BackendError, BundleError, InputError) as error:
        # What should run here and does not is refused; a GPU's library may be at fault as well as the file.
        refused = device == "cpu" or isinstance(error, CheckFailedError)
        return found(REFUSED if refused else UNVERIFIED, str(error))
    if lines := (*conformance.report.breaches, *report.breaches):
        return found(REFUSED, summary(lines))
    return found(PASSED, "; ".join((_figures(conformance.report, report), *conformance.unverified)))


def _figures(conformance: ParityReport, report: ParityReport) -> str:
    files, golden = ({image.image for image in one.images} for one in (conformance, report))
    flipped = sum(image.flipped for image in report.images)
    errors = [image.max_error for image in report.images if image.max_error == image.max_error]
    numbers = (
        f"logit error at most {max(errors):.2g} ({max(errors) / report.scale:.2g} standard deviations), "
        if errors
        else "no logits, "
    )
    return (
        f"{len(files)} conformance files right in every bit, {len(golden)} golden images through "
        f"{len(report.images)} predictions: tensors equal bit for bit, {numbers}{flipped} pixels flipped"
    )
