"""Every artefact is run and compared with PyTorch before it is sealed: proven, or refused.

A certificate, `certificates/<artefact's file>.json`, holds the full figures:

    artefact, sha256    the file that was proven
    weights             {"file", "sha256"} of the file beside it, null where there is none
    failures            how many of all images failed, and what share may at most (`Failures`)
    yardstick           what one grey level of noise flips in PyTorch on the same images (`Yardstick`)
    reports             one per backend, device, number of threads and set of images: `batch_size` (the
                        largest), `threads` (null: all cores), and ParityReport as a dict; of what is judged
                        also `task` (`NonInferiority`) and `time` (`Times`)
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tumorseg_export.references.acceptance_images import Judged
from tumorseg_export.targets.int8_acceptance import (
    check_decisions,
    figures,
    refuse_slow,
    time_against,
    unit_of,
)
from tumorseg_export.targets.registry import TARGETS, Target
from tumorseg_runtime.backends import BACKENDS, open_session, why_unavailable
from tumorseg_runtime.bundle.bundle import Artefact, Bundle, Verdict, sha256_of
from tumorseg_runtime.core.errors import BackendError, ParityError
from tumorseg_runtime.core.files import make_folder, write_text
from tumorseg_runtime.core.progress import Tell, part, parts, silent
from tumorseg_runtime.core.records import Count, Fields, to_json
from tumorseg_runtime.device.engines import OtherMachineError
from tumorseg_runtime.inference.segmenter import door_of
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.compare import ParityReport, logit_scale, summary
from tumorseg_runtime.parity.failures import Failures
from tumorseg_runtime.parity.margin import CERTIFICATE
from tumorseg_runtime.parity.reference import Golden, load_golden
from tumorseg_runtime.parity.replay import ONE_BY_ONE, full_plan, replay
from tumorseg_runtime.parity.yardstick import Yardstick

FOLDER = "certificates"
PASSES = 5  # over the golden images, in the plan of a proof
# Threads (None: all cores) with which an artefact is compared. MNN cuts Winograd's tiles by their number, and
# its logits change with them more than any other backend's: a device may serve with one.
THREADS: dict[str, tuple[int | None, ...]] = {"mnn": (None, 1)}


class BreachError(ParityError):
    """An artefact that is refused, with the report that refuses it."""

    def __init__(self, message: str, report: ParityReport) -> None:
        super().__init__(message)
        self.report = report

    def __reduce__(self) -> tuple[type[BreachError], tuple[str, ParityReport]]:
        """Both arguments, so that it survives the way between processes."""
        return type(self), (str(self), self.report)


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
    draft: Bundle,
    artefact: Artefact,
    target: Target,
    calibration: Sequence[Golden] = (),
    yardstick: Yardstick | None = None,
    judged: Judged | None = None,
    tell: Tell = silent,
) -> Artefact:
    """The artefact with its verdicts, and its certificate written into the draft's folder.

    draft: a bundle on its way, with golden images and artefact in its folder.
    calibration: images that are compared beside the golden ones, one by one; they stay out of the bundle.
    yardstick: of all these images, for the certificate.
    judged: images for a target that is judged, in place of the calibration images.
    tell: the share of the proofs that is done.
    Raises ParityError, naming artefact, image and figure, where any proof that can run here fails, and
    BackendError where the first one, which must run, cannot. Another that cannot is unverified, and says why.
    """
    certificate = f"{FOLDER}/{artefact.file}.json"
    verdicts, reports = [], []
    reasons = [why_unavailable(*one) for one in target.validated_on]
    shares = iter(parts(tell, [1.0] * reasons.count(None)))
    for place, (backend, device) in enumerate(target.validated_on):
        if reason := reasons[place]:
            verdicts.append(Verdict(backend, device, "unverified", reason))
            continue
        share = next(shares)
        try:
            if target.judged:
                assert judged is not None
                reports += _replay(draft, artefact, backend, device, (), part(share, 0, 2))
                reports.append(_judge(draft, artefact, backend, device, judged))
            else:
                reports += _replay(draft, artefact, backend, device, calibration, share)
        except BackendError as error:
            if place == 0 and target.must_run and not isinstance(error, OtherMachineError):
                raise
            verdicts.append(Verdict(backend, device, "unverified", str(error)))
        else:
            verdicts.append(Verdict(backend, device, "passed", certificate))
    write_certificate(draft.root, artefact, reports, yardstick)
    return dataclasses.replace(artefact, parity=tuple(verdicts))


def _replay(
    draft: Bundle, artefact: Artefact, backend: str, device: str, calibration: Sequence[Golden], tell: Tell
) -> list[dict[str, Any]]:
    """The golden images through the door that serves, in several batch sizes, then the other images one by
    one, for each number of threads."""
    reports = []
    counts = THREADS.get(backend, (None,))
    for number, threads in enumerate(counts):
        session = open_session(
            draft, backend=backend, device=device, precision=artefact.precision, threads=threads
        )
        door, golden = door_of(draft, session), load_golden(draft)
        budget, scale = BUDGETS[artefact.precision], logit_scale([item.logits for item in golden])
        sets = ((golden, full_plan(door.batch_size)), (calibration if threads is None else (), ONE_BY_ONE))
        shares = parts(part(tell, number, len(counts)), [PASSES * len(golden), len(sets[1][0])])
        for (references, plan), share in zip(sets, shares, strict=True):
            if not references:
                continue
            report = replay(door, references, budget, plan, artefact=artefact.file, scale=scale, tell=share)
            refuse_breach(report, threads)
            reports.append({"batch_size": door.batch_size, "threads": threads, **report.to_dict()})
    return reports


def _judge(draft: Bundle, artefact: Artefact, backend: str, device: str, judged: Judged) -> dict[str, Any]:
    """The report over the judged images with the verdict on the task and the times."""
    session = open_session(draft, backend=backend, device=device, precision=artefact.precision)
    door = door_of(draft, session)
    report, task = check_decisions(door, judged, unit_of(judged), artefact.file)
    onnx_runtime = device if device in BACKENDS["onnxruntime"].devices else "cpu"
    fp32 = open_session(draft, backend="onnxruntime", device=onnx_runtime)
    times = time_against(fp32, session, judged.images[0].tensor)
    refuse_slow(times, artefact.file, report)
    return {"batch_size": 1, "threads": None, **report.to_dict(), **figures(task, times)}


def refuse_breach(report: ParityReport, threads: int | None = None) -> None:
    """Raise ParityError where the report has breaches. threads: None for all cores."""
    if not report.passed:
        others = [name for name, target in TARGETS.items() if target.instead_of == report.backend]
        remedy = f"take the target {others[0]} in its place" if others else "leave out its target"
        raise BreachError(
            f"under {report.backend} on {report.device}"
            f"{f' with {threads} thread' if threads else ''} an artefact decides other than "
            f"PyTorch, no bundle was written: {summary(report.breaches)}: {remedy}",
            report,
        )


def write_certificate(
    root: Path, artefact: Artefact, reports: list[dict[str, Any]], yardstick: Yardstick | None = None
) -> None:
    """Write the artefact's certificate, as the module describes it."""
    weights = artefact.weights
    images = [(image["image"], bool(image["breaches"])) for report in reports for image in report["images"]]
    failures = Failures.of(images)
    values = {
        "artefact": artefact.file,
        "sha256": sha256_of(root / artefact.file),
        "weights": {"file": weights, "sha256": sha256_of(root / weights)} if weights else None,
        "failures": failures.to_dict() if images else None,
        "yardstick": yardstick.to_dict() if yardstick else None,
        "reports": reports,
    }
    make_folder(root / FOLDER)
    write_text(root / FOLDER / f"{artefact.file}.json", to_json(values), durable=False)


def read_certificate(bundle: Bundle, artefact: Artefact) -> dict[str, Any]:
    """The certificate of one of the bundle's artefacts."""
    image = Fields(max_error=float | None, flipped=Count, pixels=Count)
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
    errors = [image["max_error"] for report in reports for image in report["images"]]
    error = max((one for one in errors if one is not None), default=math.nan)
    counts = [
        tuple(sum(image[what] for image in report["images"]) for what in ("flipped", "pixels"))
        for report in reports
    ]
    flipped, pixels = max(counts)
    return float(error), int(flipped), int(pixels)
