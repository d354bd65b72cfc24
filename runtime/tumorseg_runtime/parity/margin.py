"""How near to the threshold is too near: the band of logits in which another backend could decide otherwise.

The bundle's certificates hold, per artefact and backend, the largest error of a logit against PyTorch's
over the golden images. Two backends that err by at most E each differ by at most 2E, and resizing logits,
a weighted mean, enlarges no error: so a pixel whose logit is within 2E of the threshold may be decided
otherwise by another backend of this precision, and a pixel beyond it may not, as far as the golden images
tell. Where the bundle has no certificate for the precision, E is what parity allows at most.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.records import Fields, Format, Range

CERTIFICATE = Format("certificate", "copy or export the bundle again")
_ERRORS = Fields(reports=[Fields(images=[Fields(max_error=Annotated[float, Range(0)] | None)])])


@dataclasses.dataclass(frozen=True)
class Band:
    """Half its width, in logits, and where the number comes from: a line for people."""

    logits: float
    source: str


def read_band(bundle: Bundle, precision: str) -> Band:
    """The band of a bundle for one precision; raises BundleError where a certificate cannot be read."""
    names = sorted(
        {
            verdict.detail
            for artefact in bundle.artefacts
            if artefact.precision == precision
            for verdict in artefact.parity
            if verdict.status == "passed"
        }
    )
    errors = [error for name in names for error in _errors(bundle, name)]
    if errors:
        return Band(2 * max(errors), f"twice the largest logit error in {', '.join(names)}")
    from tumorseg_runtime.parity.budget import BUDGETS
    from tumorseg_runtime.parity.compare import logit_scale
    from tumorseg_runtime.parity.reference import load_golden

    scale = logit_scale([item.logits for item in load_golden(bundle)])
    allowed = BUDGETS[precision].relative_error * scale
    return Band(2 * allowed, f"twice the logit error that parity allows in {precision}: no certificate")


def _errors(bundle: Bundle, name: str) -> list[float]:
    """Largest logit error of every image in every report of a certificate."""
    reports = CERTIFICATE.parse(bundle.read(name), bundle.root / name, _ERRORS)["reports"]
    errors = [image["max_error"] for report in reports for image in report["images"]]
    return [error for error in errors if error is not None]  # a form without logits has none
