from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.evaluation.calibration import Bins, calibration
from tumorseg_train.monitoring.temperature import PartLogits, _histogram, collect, fit_temperature
from tumorseg_train.networks.run import Run
from tumorseg_train.report.bootstrap import draw_weights

RANDOM = np.random.default_rng(3)
IMAGES = 12


def part(overconfident: float) -> tuple[PartLogits, list[tuple[np.ndarray, np.ndarray]]]:
    """Images whose pixels have a tumour with the probability of their logit over this."""
    images = []
    for _ in range(IMAGES):
        logits = RANDOM.normal(-4, 6, (40, 50)).astype(np.float32)
        images.append((logits, RANDOM.random(logits.shape) < 1 / (1 + np.exp(-logits / overconfident))))
    histograms = tuple(_histogram(*image) for image in images)
    groups = tuple(map(str, range(IMAGES)))
    return PartLogits(histograms, histograms[:3], groups, groups[:3]), images


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_images_is_found(true: float) -> None:
    found, _ = part(true)
    assert fit_temperature(found) == pytest.approx(true, rel=0.05)


def test_figures_are_those_of_the_pixels_themselves() -> None:
    found, images = part(2.5)
    figures = found.figures(2.5)
    shares = [(1 / (1 + np.exp(-logits / 2.5)), truth) for logits, truth in images]
    exact = calibration([Bins.of(*one) for one in shares], draw_weights(found.groups))
    assert figures["all"]["ece"]["value"] == pytest.approx(exact["ece"]["value"], abs=1e-3)
    assert figures["all"]["brier"] == pytest.approx(exact["brier"], abs=1e-4)
    loss = -np.mean([np.log(np.where(truth, p, 1 - p)) for p, truth in shares])
    assert figures["all"]["loss"] == pytest.approx(loss, rel=1e-3)
    assert figures["all"]["ece"]["value"] < found.figures(1.0)["all"]["ece"]["value"] / 3
    assert figures["all"]["loss"] < found.figures(1.0)["all"]["loss"]
    assert figures["near"]["ece"]["low"] is None  # of three groups no interval is given


def test_what_cannot_be_fitted_is_one_line(tiny_run: Run) -> None:
    everywhere = tuple(histogram * [[1], [0]] for histogram in part(1)[0].everywhere)
    with pytest.raises(InputError, match="expected both"):
        fit_temperature(PartLogits(everywhere, (), ("a",) * IMAGES, ()))
    softmax = dataclasses.replace(tiny_run.contract, rule="softmax", threshold=None, classes=("a", "b"))
    with pytest.raises(InputError, match="rule is softmax"):
        collect(lambda image, name: np.zeros((2, 64, 64), np.float32), tiny_run.manifest(), softmax, "val")


def test_the_contract_says_where_the_threshold_is_reported() -> None:
    contract = Contract(threshold=0.15)
    warm = dataclasses.replace(contract, temperature=2.0)
    assert warm.logit_threshold == contract.logit_threshold
    assert contract.reported_threshold == 0.15
    assert warm.reported_threshold == pytest.approx(1 / (1 + np.exp(-contract.logit_threshold / 2)))
    assert "temperature 2 as probability 0.296" in warm.decision
    assert "temperature" not in contract.decision
    for wrong in (0.0, -1.0, 100.0, float("nan")):
        with pytest.raises(InputError, match="temperature is"):
            dataclasses.replace(contract, temperature=wrong)
