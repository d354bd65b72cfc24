"""Every artefact is run and compared with PyTorch before it is sealed: proven, or refused.

A certificate, `certificates/<artefact's file>.json`, holds the full figures:

    artefact, sha256    the file that was proven
    weights             {"file", "sha256"} of the file beside it, null where there is none
    reports             one per backend, device, batch size and number of threads: `batch_size`, `threads`
                        (null: all cores), and ParityReport as a dict
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tumorseg_export.references.golden_images import FEWEST
from tumorseg_export.targets.registry import Target
from tumorseg_runtime.backends import open_session, why_unavailable
from tumorseg_runtime.bundle.bundle import Artefact, Bundle, Verdict, sha256_of
from tumorseg_runtime.core.errors import BackendError, ParityError
from tumorseg_runtime.core.files import make_folder, write_text
from tumorseg_runtime.core.records import Count, Fields, to_json
from tumorseg_runtime.core.session import Session
from tumorseg_runtime.device.engines import OtherMachineError
from tumorseg_runtime.parity.compare import ParityReport
from tumorseg_runtime.parity.margin import CERTIFICATE
from tumorseg_runtime.parity.reference import Golden, replay

FOLDER = "certificates"
BATCH_SIZES = (1, FEWEST)
# Batch sizes and threads (None: all cores) of a proof. MNN cuts Winograd's tiles by the number of threads,
# and its logits change with them more than any other backend's: a device may serve with one.
SERVED = tuple((batch_size, None) for batch_size in BATCH_SIZES)
SERVED_BY: dict[str, tuple[tuple[int, int | None], ...]] = {"mnn": (*SERVED, (1, 1))}


def require_validators(name: str, target: Target) -> None:
    """Raise BackendError where this machine cannot make the target or run its first proof, and must."""
    backend, device = target.validated_on[0]
    remedy = f"pip install 'tumorseg[export,{target.extra}]'"
    if target.must_run and (reason := why_unavailable(backend, device)):
        raise BackendError(
            f"target {name} must be proven by {backend} on {device}: {reason}; "
            f"expected a machine that runs it: {remedy}"
        )
    if missing := [package for package in target.packages if importlib.util.find_spec(package) is None]:
        raise BackendError(
            f"target {name} is made with {', '.join(missing)}: not installed, expected it to be: {remedy}"
        )


def validate_parity(
    draft: Bundle, artefact: Artefact, target: Target, calibration: Sequence[Golden] = ()
) -> Artefact:
    """The artefact with its verdicts, and its certificate written into the draft's folder.

    draft: a bundle on its way, with golden images and artefact in its folder.
    calibration: images that are compared beside the golden ones, one by one; they stay out of the bundle.
    Raises ParityError, naming artefact, image and figure, where any proof that can run here fails.
    """
    if target.self_validating:
        return artefact
    certificate = f"{FOLDER}/{artefact.file}.json"
    verdicts, reports = [], []
    for backend, device in target.validated_on:
        if reason := why_unavailable(backend, device):
            verdicts.append(Verdict(backend, device, "unverified", reason))
            continue
        try:
            reports += _replay_batches(draft, artefact, backend, device, calibration)
        except OtherMachineError as error:
            verdicts.append(Verdict(backend, device, "unverified", str(error)))
        else:
            verdicts.append(Verdict(backend, device, "passed", certificate))
    write_certificate(draft.root, artefact, reports)
    return dataclasses.replace(artefact, parity=tuple(verdicts))


def _replay_batches(
    draft: Bundle, artefact: Artefact, backend: str, device: str, calibration: Sequence[Golden]
) -> list[dict[str, Any]]:
    sessions: dict[int | None, Session] = {}
    reports = []
    for batch_size, threads in SERVED_BY.get(backend, SERVED):
        if threads not in sessions:
            sessions[threads] = open_session(
                draft, backend=backend, device=device, precision=artefact.precision, threads=threads
            )
        more = calibration if batch_size == 1 else ()
        report = replay(draft, sessions[threads], artefact.file, batch_size=batch_size, more=more)
        refuse_breach(report, batch_size, threads)
        reports.append({"batch_size": batch_size, "threads": threads, **report.to_dict()})
    return reports


def refuse_breach(report: ParityReport, batch_size: int, threads: int | None = None) -> None:
    """Raise ParityError where the report has breaches. threads: None for all cores."""
    if not report.passed:
        remedy = (
            "take the target mnn-exact in its place" if report.backend == "mnn" else "leave out its target"
        )
        raise ParityError(
            f"under {report.backend} on {report.device} at batch {batch_size}"
            f"{f' with {threads} thread' if threads else ''} an artefact decides other than "
            f"PyTorch, no bundle was written: {'; '.join(report.breaches)}: {remedy}"
        )


def write_certificate(root: Path, artefact: Artefact, reports: list[dict[str, Any]]) -> None:
    """Write the artefact's certificate, as the module describes it."""
    weights = artefact.weights
    values = {
        "artefact": artefact.file,
        "sha256": sha256_of(root / artefact.file),
        "weights": {"file": weights, "sha256": sha256_of(root / weights)} if weights else None,
        "reports": reports,
    }
    make_folder(root / FOLDER)
    write_text(root / FOLDER / f"{artefact.file}.json", to_json(values), durable=False)


def read_certificate(bundle: Bundle, artefact: Artefact) -> dict[str, Any]:
    """The certificate of one of the bundle's artefacts."""
    image = Fields(max_error=float, flipped=Count, pixels=Count)
    values: dict[str, Any] = CERTIFICATE.read(
        bundle.root / FOLDER / f"{artefact.file}.json", Fields(reports=[Fields(images=[image])])
    )
    return values


def worst_figures(bundle: Bundle, artefact: Artefact) -> tuple[float, int, int] | None:
    """Largest logit error of any image, most pixels flipped in all images of one proof, and its pixels.

    None for an artefact that nothing on the exporting machine could run.
    """
    reports = read_certificate(bundle, artefact)["reports"]
    if not reports:
        return None
    error = max(image["max_error"] for report in reports for image in report["images"])
    counts = [
        tuple(sum(image[what] for image in report["images"]) for what in ("flipped", "pixels"))
        for report in reports
    ]
    flipped, pixels = max(counts)
    return float(error), int(flipped), int(pixels)
