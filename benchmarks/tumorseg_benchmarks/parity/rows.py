"""What a parity check says of one variant over one set of images."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.variants.variants import Variant
from tumorseg_runtime.parity.compare import ParityReport
from tumorseg_runtime.parity.yardstick import Yardstick
from tumorseg_train.report.noninferiority import REFUSED as INFERIOR
from tumorseg_train.report.noninferiority import NonInferiority

CONFORMANCE = "conformance"  # the name of the set of conformance files


@dataclasses.dataclass(frozen=True, eq=False)
class Compared:
    """pixels: uint8 (H, W[, 3]) as read. theirs, ours: PyTorch's and the artefact's mask, bool (h, w)."""

    pixels: npt.NDArray[np.uint8]
    theirs: npt.NDArray[np.bool_]
    ours: npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class ParityRow:
    """Verdict on one variant over one set of images, in calls of `batch` images.

    status: 'passed', 'refused', or 'unverified' where the variant does not run on this machine, or where
        these images are no verdict on its precision.
    reason: why it is unverified, or what stopped the comparison; empty where `report` tells all.
    noninferiority: against the ground truth; None where there is none.
    yardstick: what a grey level of noise does to PyTorch's own masks on these images; None without a run.
    worst: the image of the report's worst figures, to look at; not in the JSON.
    """

    variant: Variant
    images: str
    batch: int | None
    status: str
    reason: str
    report: ParityReport | None
    noninferiority: NonInferiority | None = None
    yardstick: Yardstick | None = None
    worst: Compared | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **dataclasses.asdict(self.variant),
            "variant": self.variant.name,
            "images": self.images,
            "batch": self.batch,
            "status": self.status,
            "reason": self.reason,
            "report": self.report.to_dict() if self.report else None,
            "yardstick": self.yardstick.to_dict() if self.yardstick else None,
            "noninferiority": self.noninferiority.to_dict() if self.noninferiority else None,
        }

    @property
    def breaches(self) -> tuple[str, ...]:
        """One line per breach: variant, image, figure, budget."""
        if self.status != "refused":
            return ()
        if self.report is None:
            return (f"{self.variant.label}: {self.reason}",)
        noninferiority = self.noninferiority
        inferior = (
            (f"{self.variant.label}: {noninferiority.line}",)
            if noninferiority and noninferiority.status == INFERIOR
            else ()
        )
        return (*self.report.breaches, *inferior)
