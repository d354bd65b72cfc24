import math

import numpy as np
import pytest

from tumorseg_train.metrics import ImageScore, mean_dice, summary, threshold_baseline


def mask(*rows: str) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows])


def test_dice_by_hand() -> None:
    score = ImageScore.of("a", mask("##.", "#.."), mask(".##", "#.."))
    assert (score.truth_px, score.predicted_px, score.both_px) == (3, 3, 2)
    assert score.dice == pytest.approx(4 / 6)


def test_images_without_a_tumour_count_apart() -> None:
    hit = ImageScore.of("hit", mask("#."), mask("#."))
    clean = ImageScore.of("clean", mask(".."), mask(".."))
    false_alarm = ImageScore.of("false alarm", mask("#."), mask(".."))
    assert math.isnan(clean.dice)
    assert mean_dice([hit, clean, false_alarm]) == 1
    figures = summary([hit, clean, false_alarm])
    assert figures["healthy_left_empty"] == 1
    assert figures["images_with_tumour"] == 1
    assert figures["pooled_f1"] == pytest.approx(2 / 3)  # the false alarm's pixel counts in the pool


def test_baseline_is_the_best_threshold_of_all() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20, 20), dtype=np.uint8) for _ in range(3)]
    truths = [(image > 100) ^ (rng.random(image.shape) < 0.2) for image in images]

    def dice(images: list[np.ndarray], cut: int, below: bool) -> float:
        each = []
        for image, truth in zip(images, truths, strict=True):
            predicted = image <= cut if below else image >= cut
            each.append(2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()))
        return float(np.mean(each))

    best = max(dice(images, cut, False) for cut in range(256))
    found = threshold_baseline(images, truths)
    assert found["tumour"] == "above"
    assert found["mean_dice"] == pytest.approx(best)
    assert dice(images, int(found["threshold"]), False) == pytest.approx(best)

    inverted = [np.uint8(255) - image for image in images]
    found = threshold_baseline(inverted, truths)
    assert found["tumour"] == "below"
    assert found["mean_dice"] == pytest.approx(best)
    assert dice(inverted, int(found["threshold"]), True) == pytest.approx(best)


def test_baseline_takes_colour_and_skips_images_without_a_tumour() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[1:3, 1:3] = 200
    truth = image[:, :, 0] > 0
    assert threshold_baseline([image, image], [truth, np.zeros_like(truth)])["mean_dice"] == 1
