"""Is a bundle whole, and does this device decide with it as PyTorch did? Nothing is assumed: what could not
be run is reported as not verified, with the reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tumorseg_runtime.backends import BACKENDS, has_artefact, open_session, why_unavailable
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError, OutputError
from tumorseg_runtime.core.session import MASKS, output_of
from tumorseg_runtime.device.cache import find
from tumorseg_runtime.parity.reference import replay
from tumorseg_runtime.parity.replay_masks import MaskReport, replay_masks

DEVICES = ("cpu", "cuda", "tensorrt", "gpu", "npu")  # what any backend may be asked for
PASSED, BREACHED, NOT_VERIFIED = "passed", "breached", "not verified"


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
        """True where the bundle is whole, something was run, and nothing broke its budget."""
        statuses = [check.status for check in self.checks]
        return not self.problems and PASSED in statuses and BREACHED not in statuses

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"passed": self.passed, **dataclasses.asdict(self)}


def verify_bundle(
    root: Path,
    *,
    backend: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    device_folder: Path | None = None,
) -> Verification:
    """Check every hash, then replay the golden images (bytes -> tensor -> logits -> decisions).

    backend, device, precision: only these; None for all that the bundle has. A backend whose artefact the
        bundle lacks is reported only where it was asked for by name.
    Raises BundleError where there is no bundle at all, InputError for an unknown name.
    """
    bundle = Bundle.read_index(root)
    if backend is not None and backend not in BACKENDS:
        raise InputError(f"backend is '{backend}', expected one of {', '.join(BACKENDS)}")
    if device is not None and device not in DEVICES:
        raise InputError(f"device is '{device}', expected one of {', '.join(DEVICES)}")
    problems = tuple(bundle.problems())
    checks = []
    if not problems:
        precisions = sorted({artefact.precision for artefact in bundle.artefacts})
        folder = find(bundle) if device_folder is None else device_folder
        for name in BACKENDS if backend is None else (backend,):
            for one in devices_of(name) if device is None else (device,):
                for kind in precisions if precision is None else (precision,):
                    if backend is not None or has_artefact(bundle, name, kind, folder):
                        checks.append(_check(bundle, name, one, kind, folder))
    return Verification(bundle.name, bundle.digest(), problems, tuple(checks))


def devices_of(backend: str) -> list[str]:
    """The devices that a backend knows, whether this machine has them or not."""
    return [device for device in DEVICES if _knows(backend, device)]


def _knows(backend: str, device: str) -> bool:
    try:
        why_unavailable(backend, device)
    except InputError:
        return False
    return True


def _check(bundle: Bundle, backend: str, device: str, precision: str, folder: Path | None) -> Check:
    try:
        if reason := why_unavailable(backend, device):
            return Check(backend, device, precision, NOT_VERIFIED, reason)
        session = open_session(
            bundle, backend=backend, device=device, precision=precision, device_folder=folder
        )
        name = f"{backend} {device} {precision}"
        if output_of(session) == MASKS:
            return _check_masks(replay_masks(bundle, session, name), backend, device, precision)
        report = replay(bundle, session, name)
    except OutputError as error:
        return Check(backend, device, precision, BREACHED, str(error))
    except (BackendError, BundleError, InputError) as error:
        return Check(backend, device, precision, NOT_VERIFIED, str(error))
    if not report.passed:
        return Check(backend, device, precision, BREACHED, "; ".join(report.breaches))
    worst = max(image.max_error for image in report.images)
    flipped = sum(image.flipped for image in report.images)
    detail = (
        f"{len(report.images)} golden images, tensors equal bit for bit, logit error at most {worst:.2g} "
        f"({worst / report.scale:.2g} standard deviations), {flipped} pixels flipped"
    )
    return Check(backend, device, precision, PASSED, detail)


def _check_masks(report: MaskReport, backend: str, device: str, precision: str) -> Check:
    if not report.passed:
        return Check(backend, device, precision, BREACHED, "; ".join(report.breaches))
    flipped = sum(image.flipped for image in report.images)
    detail = f"{len(report.images)} golden images, pixels equal bit for bit, {flipped} of the mask flipped"
    return Check(backend, device, precision, PASSED, detail)
