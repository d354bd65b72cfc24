"""The contract's threshold, chosen on validation images.

Of the probabilities in GRID the one with the largest mean of two figures: the mean Dice, which asks for every
tumour, small ones too, and the pooled F1, which also pays for what is marked in images without one. Of equals
the one nearest to 0.5 is taken. The test part plays no role.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.progress import Tell, silent, told
from tumorseg_train.data.split import Manifest
from tumorseg_train.evaluation.predictions import Infer, answer

GRID = tuple(round(0.05 * step, 2) for step in range(1, 20))


@dataclasses.dataclass(frozen=True)
class ThresholdChoice:
    """A threshold of GRID with its figures on the images it was chosen on."""

    threshold: float
    mean_dice: float
    pooled_f1: float

    @property
    def merit(self) -> float:
        """What is to be large."""
        return (self.mean_dice + self.pooled_f1) / 2


def choose_threshold(
    infer: Infer, manifest: Manifest, contract: Contract, part: str = "val", tell: Tell = silent
) -> list[ThresholdChoice]:
    """All thresholds of GRID, the best first, by the images of a part at the contract's size.

    infer, tell: as `score_part` takes them. Raises InputError where no image of the part has a tumour.
    """
    contract = dataclasses.replace(contract, temperature=1.0)  # a threshold is one of the network's own
    dice, sick = np.zeros(len(GRID)), 0
    both, total = np.zeros(len(GRID)), np.zeros(len(GRID))  # pixels over all images
    edges = np.asarray(GRID, np.float32)
    for item in told(manifest.part(part), tell):
        found = answer(infer, contract, manifest, item)
        # Pixels at or above each threshold: those whose last edge below them is that one or a later one.
        last = np.searchsorted(edges, found.probability.ravel(), side="right")
        marked = _from_each(last)
        hit = _from_each(last[found.truth.ravel()])
        both += hit
        total += marked + found.truth.sum()
        if found.truth.any():
            dice += 2 * hit / (marked + found.truth.sum())
            sick += 1
    if not sick:
        raise InputError(f"no image of '{part}' has a tumour, expected some: a threshold cannot be chosen")
    choices = [
        ThresholdChoice(threshold, float(dice[i] / sick), float(2 * both[i] / total[i]))
        for i, threshold in enumerate(GRID)
    ]
    return sorted(choices, key=lambda choice: (-choice.merit, abs(choice.threshold - 0.5)))


def _from_each(
    last: np.ndarray[tuple[int, ...], np.dtype[np.intp]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    """How many values reach each threshold: last[i] thresholds are at or below value i."""
    counts = np.bincount(last, minlength=len(GRID) + 1)
    return np.asarray(counts[::-1].cumsum()[::-1][1:])
