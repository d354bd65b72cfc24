"""Dice of an artefact and of PyTorch against the ground truth, image by image, for the verdict on the task
(`tumorseg_train.report.noninferiority`)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.parity.references import ReferenceSet
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.parity.mask_diff import mask_dice
from tumorseg_runtime.parity.report import ParityReport
from tumorseg_runtime.processing.decision import decide
from tumorseg_train.report.noninferiority import (
    FEWEST_GROUPS,
    PASSED,
    NonInferiority,
    judge_noninferiority,
)

BoolArray = npt.NDArray[np.bool_]


class DiceScores:
    """Collects the Dice of one artefact's masks and of PyTorch's, image by image."""

    def __init__(self, reference: ReferenceSet, contract: Contract) -> None:
        self._reference = reference
        self._contract = contract
        self._pairs: dict[int, tuple[float, float]] = {}

    def add(self, index: int, masks: BoolArray) -> None:
        """The artefact's masks bool (K, h, w) of an image, at the network's size."""
        if self._reference.truth is None:
            return
        truth = self._reference.truth(index)
        if truth.any():
            ours = decide(self._reference.logits[index], self._contract)
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
