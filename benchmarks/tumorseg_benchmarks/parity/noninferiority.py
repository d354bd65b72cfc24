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

from tumorseg_benchmarks.parity.references import ReferenceSet
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.parity.mask_diff import mask_dice
from tumorseg_runtime.parity.report import ParityReport

BoolArray = npt.NDArray[np.bool_]
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
    """

    images: int
    groups: int
    pytorch: float
    artefact: float
    ratio: float
    low: float
    high: float
    status: str

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
            return f"{figures}: not inferior at {LEAST:g}"
        if self.status == REFUSED:
            return f"{figures}: expected a lower bound of at least {LEAST:g}"
        return f"{figures}: too few images to tell whether it is at least {LEAST:g}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**dataclasses.asdict(self), "least": LEAST}


class DiceScores:
    """Collects the Dice of one artefact's masks and of PyTorch's, image by image."""

    def __init__(self, reference: ReferenceSet, contract: Contract) -> None:
        self._reference = reference
        self._threshold = np.float32(contract.logit_threshold)
        self._pairs: dict[int, tuple[float, float]] = {}

    def add(self, index: int, masks: BoolArray) -> None:
        """The artefact's masks bool (K, h, w) of an image, at the network's size."""
        if self._reference.truth is None:
            return
        truth = self._reference.truth(index)
        if truth.any():
            ours = self._reference.logits[index] >= self._threshold
            both = (np.asarray(one.any(axis=0)) for one in (ours, masks))
            pytorch, artefact = (mask_dice(mask, truth) for mask in both)
            self._pairs[index] = pytorch, artefact

    def overrules(self, report: ParityReport) -> bool:
        """Whether the ground truth shows the artefact as good, with enough groups, and knows every image that
        broke a budget: one without a tumour has no Dice, and nobody speaks for it."""
        found = self.verdict()
        known = {self._reference.images[index].name for index in self._pairs}
        broken = {image.image for image in report.images if image.breaches}
        return (
            found is not None and found.status == PASSED and found.groups >= FEWEST_GROUPS and broken <= known
        )

    def verdict(self) -> NonInferiority | None:
        """None where no image with a tumour in its ground truth was seen."""
        if not self._pairs:
            return None
        order = sorted(self._pairs)
        pytorch, artefact = np.array([self._pairs[index] for index in order]).T
        names = self._reference.groups or tuple(image.name for image in self._reference.images)
        return judge_noninferiority(pytorch, artefact, [names[index] for index in order])


def judge_noninferiority(
    pytorch: npt.NDArray[np.float64], artefact: npt.NDArray[np.float64], groups: list[str]
) -> NonInferiority:
    """pytorch, artefact: Dice (N,) of the same images; groups: the group of each."""
    from tumorseg_train.report.bootstrap import Ratio, draw_weights, estimate

    found = estimate(Ratio(artefact, pytorch), groups, draw_weights(groups), least=2)
    count = len(set(groups))
    if found.low >= LEAST or np.array_equal(pytorch, artefact):
        status = PASSED
    elif found.high < LEAST or (count >= FEWEST_GROUPS and not math.isnan(found.low)):
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
    )
