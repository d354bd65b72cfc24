import math

import numpy as np
import pytest
import torch
from torchmetrics.functional import classification as peer

from tumorseg_train.evaluation.metrics import ImageScore, ThresholdBaseline, mean_dice


def mask(*rows: str) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows])


def test_dice_by_hand() -> None:
    score = ImageScore.of("a", mask("##.", "#.."), mask(".##", "#.."))
    assert (score.truth_px, score.predicted_px, score.both_px) == (3, 3, 2)
    assert score.dice == pytest.approx(4 / 6)


def test_pixels_as_a_second_implementation_counts_them() -> None:
    rng = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.9):
        truth, predicted = rng.random((2, 40, 50)) < share
        score = ImageScore.of("a", predicted, truth)
        arguments = torch.from_numpy(predicted).int(), torch.from_numpy(truth).int()
        for ours, theirs in (
            (score.dice, peer.binary_f1_score),
            (score.iou, peer.binary_jaccard_index),
            (score.precision, peer.binary_precision),
            (score.recall, peer.binary_recall),
            (score.accuracy, peer.binary_accuracy),
        ):
            assert ours == pytest.approx(float(theirs(*arguments)), abs=1e-6)


def test_images_without_a_tumour_count_apart() -> None:
    hit = ImageScore.of("hit", mask("#."), mask("#."))
    clean = ImageScore.of("clean", mask(".."), mask(".."))
    false_alarm = ImageScore.of("false alarm", mask("#."), mask(".."))
    assert all(math.isnan(v) for v in (clean.dice, clean.iou, clean.precision, clean.recall, clean.hd95_px))
    assert (clean.accuracy, false_alarm.accuracy) == (1, 0.5)
    assert mean_dice([hit, clean, false_alarm]) == 1
    assert math.isnan(mean_dice([clean, false_alarm]))


def test_a_tumour_that_was_missed_has_no_precision_to_boast_of() -> None:
    missed = ImageScore.of("missed", mask(".."), mask("#."))
    assert (missed.dice, missed.iou, missed.precision, missed.recall) == (0, 0, 0, 0)
    assert math.isnan(missed.hd95_px)
    assert (missed.truth_lesions, missed.predicted_lesions, missed.matched_lesions) == (1, 0, 0)


def test_millimetres_where_the_spacing_is_known() -> None:
    truth, predicted = np.zeros((2, 20, 30), np.bool_)
    truth[5, 5] = predicted[5, 15] = True
    assert ImageScore.of("a", predicted, truth).hd95_px == 10
    assert math.isnan(ImageScore.of("a", predicted, truth).hd95_mm)
    assert ImageScore.of("a", predicted, truth, (2.0, 0.5)).hd95_mm == pytest.approx(5)


def threshold_baseline(images: list[np.ndarray], truths: list[np.ndarray]) -> dict[str, float | int | str]:
    baseline = ThresholdBaseline()
    for image, truth in zip(images, truths, strict=True):
        baseline.add(image, truth)
    return baseline.best()


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
