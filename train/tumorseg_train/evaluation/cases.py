"""The pictures of an evaluation: best, median and worst cases, and what was marked without a tumour."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tumorseg_train.evaluation.evaluate import Evaluation
from tumorseg_train.evaluation.metrics import ImageScore
from tumorseg_train.evaluation.predictions import ORIGINAL, answer

SHOWN = 6  # of each kind
KINDS = {
    "worst": "Among the worst",
    "median": "Median",
    "best": "Among the best",
    "false positives": "Marked without a tumour",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """An image at its own size, uint8 (H, W) or (H, W, 3) RGB, with its masks, bool (H, W)."""

    kind: str
    score: ImageScore
    pixels: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.bool_]
    marked: npt.NDArray[np.bool_]


def choose(scores: Sequence[ImageScore], count: int = SHOWN) -> dict[str, list[ImageScore]]:
    """At most `count` scores of each kind, by Dice or by false-positive pixels; no image is chosen twice.

    Of equal Dice, the larger tumour is the worse one to miss.
    """
    sick = sorted((s for s in scores if s.truth_px), key=lambda s: (s.dice, -s.truth_px, s.image))
    marked = sorted(
        (s for s in scores if not s.truth_px and s.predicted_px), key=lambda s: (-s.predicted_px, s.image)
    )
    each = min(count, max(1, len(sick) // 3))
    worst, rest = sick[:each], sick[each:]
    best, rest = rest[::-1][:each], rest[: max(len(rest) - each, 0)]
    start = max((len(rest) - each) // 2, 0)
    return {
        "worst": worst,
        "median": rest[start : start + each],
        "best": best,
        "false positives": marked[:count],
    }


def draw_cases(evaluation: Evaluation, count: int = SHOWN) -> list[Case]:
    """The chosen cases, drawn at the images' own sizes."""
    items = {item.image: item for item in evaluation.predictions.items}
    cases = []
    for kind, scores in choose(evaluation.predictions.scores, count).items():
        for score in scores:
            found = answer(
                evaluation.predictor.infer,
                evaluation.predictor.contract,
                evaluation.manifest,
                items[score.image],
                ORIGINAL,
            )
            cases.append(Case(kind, score, found.image, found.truth, found.predicted))
    return cases
