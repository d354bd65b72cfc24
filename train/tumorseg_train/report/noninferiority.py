"""The task: is an artefact as good at finding tumours as PyTorch is, not only nearly equal to it?

Dice against the ground truth, artefact's mean over PyTorch's, must be at least 0.999 (the rule of MLPerf's
3D-UNet). It is judged by the lower bound of a 95 % interval: images are drawn anew, in pairs and whole groups
(`tumorseg_train.report.bootstrap`), so that it says what holds for such images and not for these alone.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_train.report.bootstrap import Ratio, draw_weights, estimate

LEAST = 0.999
FEWEST_GROUPS = 30  # below, an interval that contains the limit tells nothing about the artefact
SHOWN_GROUPS = 10  # below, the interval is too narrow to be shown
PASSED, REFUSED, UNDECIDED = "passed", "refused", "undecided"


@dataclasses.dataclass(frozen=True)
class NonInferiority:
    """Verdict on the task.

    images, groups: with a tumour in the ground truth; the others have no Dice.
    pytorch, artefact: mean Dice against the ground truth. ratio: artefact / PyTorch; low, high: its interval.
    status: 'passed', 'refused', or 'undecided' where there are too few images to tell.
    least: what the ratio was held against.
    """

    images: int
    groups: int
    pytorch: float
    artefact: float
    ratio: float
    low: float
    high: float
    status: str
    least: float = LEAST

    @property
    def line(self) -> str:
        """For people, one line; without the interval where it is of too few groups to be shown."""
        shown = self.groups >= SHOWN_GROUPS
        interval = f"{self.low:.5f} to {self.high:.5f}; " if shown else ""
        figures = (
            f"Dice against the ground truth {self.artefact:.4f}, PyTorch {self.pytorch:.4f}, ratio "
            f"{self.ratio:.5f} ({interval}{self.images} images in {self.groups} groups)"
        )
        if self.status == PASSED:
            return f"{figures}: not inferior at {self.least:g}"
        if self.status == REFUSED:
            return f"{figures}: expected a lower bound of at least {self.least:g}"
        return f"{figures}: too few images to tell whether it is at least {self.least:g}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def judge_noninferiority(
    pytorch: npt.NDArray[np.float64],
    artefact: npt.NDArray[np.float64],
    groups: list[str],
    least: float = LEAST,
) -> NonInferiority:
    """pytorch, artefact: Dice (N,) of the same images; groups: the group of each; least: of the ratio."""
    found = estimate(Ratio(artefact, pytorch), groups, draw_weights(groups), least=2)
    count = len(set(groups))
    if found.low >= least or np.array_equal(pytorch, artefact):
        status = PASSED
    elif found.high < least or (count >= FEWEST_GROUPS and not math.isnan(found.low)):
        status = REFUSED
    else:
        status = UNDECIDED
    return NonInferiority(
        len(pytorch),
        count,
        float(pytorch.mean()),
        float(artefact.mean()),
        found.value,
        found.low,
        found.high,
        status,
        least,
    )
