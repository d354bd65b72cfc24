"""The task's verdict: who is not inferior, who is, and where nobody can tell."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_benchmarks.parity.noninferiority import DiceScores
from tumorseg_benchmarks.parity.references import ReferenceSet
from tumorseg_benchmarks.variants.inputs import EncodedImage
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.parity.budget import Budget
from tumorseg_runtime.parity.report import ImageParity, ParityReport
from tumorseg_train.report.noninferiority import (
    FEWEST_GROUPS,
    PASSED,
    REFUSED,
    UNDECIDED,
    judge_noninferiority,
)

FloatArray = npt.NDArray[np.float64]


def dice_of(count: int) -> FloatArray:
    return np.random.default_rng(4).uniform(0.5, 0.95, count)


def names(count: int) -> list[str]:
    return [f"patient {n}" for n in range(count)]


def test_equal_dice_passes_however_few_images_there_are() -> None:
    for count in (1, 2, 60):
        found = judge_noninferiority(dice_of(count), dice_of(count), names(count))
        assert (found.status, found.ratio) == (PASSED, 1)
    assert "not inferior at 0.999" in found.line


def test_two_per_thousand_worse_is_inferior() -> None:
    found = judge_noninferiority(dice_of(60), dice_of(60) * 0.998, names(60))
    assert found.status == REFUSED
    assert found.ratio == pytest.approx(0.998)
    assert found.high < 0.999
    assert "expected a lower bound of at least 0.999" in found.line


def test_as_good_in_the_mean_and_too_scattered_to_tell() -> None:
    noise = np.random.default_rng(1).normal(0, 0.02, 60)
    scattered = dice_of(60) + noise - noise.mean()
    found = judge_noninferiority(dice_of(60), scattered, names(60))
    assert found.ratio == pytest.approx(1)
    assert found.low < 0.999 < found.high
    assert found.status == REFUSED  # 60 groups are enough: it was to be shown, and was not
    few = judge_noninferiority(dice_of(60), scattered, [f"patient {n % 10}" for n in range(60)])
    assert few.low < 0.999 < few.high
    assert (few.status, few.groups, few.images) == (UNDECIDED, 10, 60)
    assert "too few images to tell" in few.line


def test_one_group_has_no_interval() -> None:
    found = judge_noninferiority(dice_of(9), dice_of(9) * 0.9, ["one"] * 9)
    assert math.isnan(found.low)
    assert found.status == UNDECIDED


def test_scores_are_of_images_with_a_tumour_at_the_networks_size() -> None:
    logits = np.full((1, 8, 8), -1, np.float32)
    logits[0, :4] = 1
    truth = np.zeros((8, 8), bool)
    truth[2:6] = True
    truths = [truth, truth & False]
    images = tuple(EncodedImage(name, b"") for name in "ab")
    reference = ReferenceSet("test", images, (logits, logits), None, lambda index: truths[index], ("a", "b"))
    scores = DiceScores(reference, Contract(height=32, width=32))
    assert scores.verdict() is None
    scores.add(1, logits >= 0)  # no tumour: no Dice
    assert scores.verdict() is None
    better = np.broadcast_to(truth, (1, 8, 8))
    scores.add(0, better)
    found = scores.verdict()
    assert found is not None
    assert (found.images, found.groups, found.pytorch, found.artefact, found.ratio) == (1, 1, 0.5, 1, 2)
    without = DiceScores(
        ReferenceSet("golden", images, (logits, logits), None), Contract(height=32, width=32)
    )
    without.add(0, better)
    assert without.verdict() is None


def test_truth_overrules_where_it_knows_every_image_and_there_are_groups_enough() -> None:
    logits = np.full((1, 8, 8), -1, np.float32)
    logits[0, 2:6] = 1
    empty = np.zeros((8, 8), bool)
    truth = empty.copy()
    truth[2:6] = True
    count = FEWEST_GROUPS
    images = tuple(EncodedImage(f"{number}", b"") for number in range(count + 1))  # the last has no tumour
    groups = tuple(image.name for image in images)

    def overrules(broken: tuple[int, ...], count: int = count, lost: bool = False) -> bool:
        reference = ReferenceSet(
            "test",
            images,
            (logits,) * len(images),
            None,
            lambda index: empty if index == len(images) - 1 else truth,
            groups,
        )
        scores = DiceScores(reference, Contract(height=32, width=32))
        for index in (*range(count), len(images) - 1):
            scores.add(index, logits >= 0 if not lost else logits >= 9)
        found = tuple(
            ImageParity(name, 0, 0, 0, 0, 64, 9, 0.9, ("too much",) if index in broken else ())
            for index, name in enumerate(groups)
        )
        return scores.overrules(
            ParityReport("m", "fake", "cpu", "fp16", {}, Budget(relative_error=1, free_pixels=0), 1.0, found)
        )

    assert overrules((0, 3))
    assert not overrules((count,))  # nobody speaks for an image without a tumour
    assert not overrules((0,), count - 1)  # too few groups
    assert not overrules((0,), lost=True)  # inferior
