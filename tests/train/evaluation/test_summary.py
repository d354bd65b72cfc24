import math

import numpy as np
import pytest

from tumorseg_train.evaluation.metrics import ImageScore
from tumorseg_train.evaluation.summary import HEALTHY_FIGURES, ratios, size_class, stratum
from tumorseg_train.report.bootstrap import draw_weights


def square(left: int, width: int, height: int = 10) -> np.ndarray:
    mask = np.zeros((40, 50), np.bool_)
    mask[:height, left : left + width] = True
    return mask


SCORES = [
    ImageScore.of("hit", square(0, 10), square(0, 10)),
    ImageScore.of("half", square(5, 10), square(0, 10)),
    ImageScore.of("missed", square(0, 0), square(0, 20)),
    ImageScore.of("clean", square(0, 0), square(0, 0)),
    ImageScore.of("alarm", square(0, 3), square(0, 0)),
]
GROUPS = ["a", "a", "b", "c", "d"]


def test_figures_by_hand() -> None:
    figures = {name: ratio.value() for name, ratio in ratios(SCORES).items()}
    assert figures["mean_dice"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert figures["mean_iou"] == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert figures["mean_recall"] == pytest.approx((1 + 0.5 + 0) / 3)
    true, marked, both = 400, 230, 150
    assert figures["pooled_f1"] == pytest.approx(2 * both / (true + marked))
    assert figures["pooled_iou"] == pytest.approx(both / (true + marked - both))
    assert figures["pooled_precision"] == pytest.approx(both / marked)
    assert figures["pooled_recall"] == pytest.approx(both / true)
    assert figures["pooled_accuracy"] == pytest.approx(1 - (true + marked - 2 * both) / (5 * 2000))
    assert figures["hd95_px"] == pytest.approx(5 / 2)  # of hit and half
    assert math.isnan(figures["hd95_mm"])
    assert figures["missed"] == pytest.approx(1 / 3)
    assert figures["lesion_f1"] == pytest.approx(2 * 2 / (3 + 3))
    assert figures["lesion_precision"] == pytest.approx(2 / 3)
    assert figures["lesion_recall"] == pytest.approx(2 / 3)
    assert figures["specificity"] == 0.5
    assert figures["pixel_specificity"] == pytest.approx(1 - 30 / 4000)
    assert figures["false_positive_px"] == 15


def test_a_stratum_is_of_the_chosen_images_alone() -> None:
    weights = draw_weights(GROUPS)
    sick = stratum("sick", SCORES, GROUPS, weights, [0, 1, 2])
    assert (sick.images, sick.images_with_tumour, sick.groups) == (3, 3, 2)
    assert sick.figures["mean_dice"].value == pytest.approx(0.5)
    assert math.isnan(sick.figures["mean_dice"].low)  # of two groups there is no interval
    assert math.isnan(sick.figures["specificity"].value)
    well = stratum("well", SCORES, GROUPS, weights, [3, 4])
    assert well.images_with_tumour == 0
    assert {name for name, e in well.figures.items() if not math.isnan(e.value)} == set(HEALTHY_FIGURES)
    assert math.isnan(well.figures["specificity"].high)


def test_sizes() -> None:
    def of(width: int, height: int) -> str:
        return size_class(ImageScore.of("x", square(0, 0), square(0, width, height)))

    assert of(19, 1).startswith("small")  # of 2000 pixels
    assert of(20, 1).startswith("medium")
    assert of(10, 9).startswith("medium")
    assert of(10, 10).startswith("large")
    assert size_class(ImageScore.of("x", square(0, 0), np.ones((40, 50), np.bool_))).startswith("large")
    assert of(0, 0) == "no tumour"
