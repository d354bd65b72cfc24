"""The decision rule: one class per pixel or each for itself, ties, distances, probabilities."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.parity.rules import decided_rule, distance_rule, probability_rule
from tumorseg_runtime.processing.decision import decide, distances, to_probabilities
from tumorseg_runtime.processing.postprocess import close_share, masks_from_logits, resize_masks

SIGMOID = Contract(classes=("edema", "core", "rim"), threshold=0.7)
SOFTMAX = dataclasses.replace(SIGMOID, threshold=None, rule="softmax")
RULES = pytest.mark.parametrize("contract", [SIGMOID, SOFTMAX], ids=["sigmoid", "softmax"])
LOGITS = np.random.default_rng(0).normal(0, 2, (3, 40, 50)).astype(np.float32)


@pytest.mark.parametrize("background", [0, 2, 3], ids=["first", "between", "last"])
def test_softmax_is_the_argmax_of_a_network_with_a_background_channel(background: int) -> None:
    network = np.random.default_rng(1).normal(0, 2, (4, 40, 50)).astype(np.float32)
    others = np.delete(network, background, axis=0)
    masks = decide(others - network[background], SOFTMAX)
    winner = network.argmax(axis=0)
    for mask, channel in zip(masks, np.delete(np.arange(4), background), strict=True):
        np.testing.assert_array_equal(mask, winner == channel)
    assert 0.1 < np.mean(winner == background) < 0.5
    assert (decide(others - network[background], dataclasses.replace(SOFTMAX)).sum(axis=0) <= 1).all()
    exact = network.astype(np.float64)
    softmax = np.exp(exact) / np.exp(exact).sum(axis=0)
    found = to_probabilities(others - network[background], SOFTMAX)
    np.testing.assert_allclose(found, np.delete(softmax, background, axis=0), rtol=1e-5)


def test_sigmoid_gives_a_pixel_to_every_class_that_reaches_the_threshold() -> None:
    masks = decide(LOGITS, SIGMOID)
    np.testing.assert_array_equal(masks, to_probabilities(LOGITS.astype(np.float64), SIGMOID) >= 0.7)
    assert (masks.sum(axis=0) > 1).any()


def test_of_equal_logits_the_background_comes_first_then_the_classes_in_their_order() -> None:
    edge = np.float32(2)
    above = np.nextafter(edge, np.float32(3))
    columns = np.array(
        [
            [0, 0, 0], [-1, 0, -1], [0, 1, 0], [2, 2, 2], [1, 2, 2], [2, 1, 2], [edge, above, edge],
            [-0.0, -1, -1], [np.finfo(np.float32).smallest_subnormal, 0, 0],
        ],
        np.float32,
    ).T  # fmt: skip
    expected = [None, None, 1, 0, 1, 0, 1, None, 0]
    for masks in (decide(columns, SOFTMAX), decided_rule(columns, SOFTMAX)):
        assert [list(mask).index(True) if mask.any() else None for mask in masks.T] == expected


@RULES
def test_serving_and_the_rules_written_out_decide_alike(contract: Contract) -> None:
    for logits in (LOGITS, np.round(LOGITS)):  # the latter with many ties
        np.testing.assert_array_equal(decide(logits, contract), decided_rule(logits, contract))
        np.testing.assert_allclose(distances(logits, contract), distance_rule(logits, contract), atol=1e-6)
        expected = probability_rule(logits, contract)
        np.testing.assert_allclose(to_probabilities(logits, contract), expected, rtol=1e-5)


@RULES
def test_an_error_below_the_distance_changes_no_decision_and_one_above_can(contract: Contract) -> None:
    random, exact = np.random.default_rng(2), LOGITS.astype(np.float64)
    distance, masks = distance_rule(exact, contract), decide(exact, contract)
    assert np.array_equal(distance >= 0, masks)
    for klass in range(3):
        away = np.abs(distance[klass])
        for _ in range(20):
            error = random.choice([-1, 1], exact.shape) * away * 0.999
            np.testing.assert_array_equal(decide(exact + error, contract)[klass], masks[klass])
        towards = np.ones_like(exact)
        towards[klass] = -1  # the others up, this one down; for a pixel outside the other way about
        error = np.where(masks[klass], towards, -towards) * (away * 1.001 + 1e-9)
        np.testing.assert_array_equal(decide(exact + error, contract)[klass], ~masks[klass])


def test_probabilities_of_huge_logits_are_finite() -> None:
    logits = np.array([[[1000.0, -1000.0, 1000.0]], [[-1000.0, -1000.0, 1000.0]]], np.float32)
    np.testing.assert_array_equal(to_probabilities(logits, SOFTMAX), [[[1, 0, 0.5]], [[0, 0, 0.5]]])


@RULES
def test_the_share_of_close_decisions_is_by_the_rule(contract: Contract) -> None:
    share = close_share(LOGITS, contract, 40, 50, 0.3)
    assert share == np.mean(np.abs(distance_rule(LOGITS, contract)) <= 0.3)
    other = SOFTMAX if contract is SIGMOID else SIGMOID
    assert share != close_share(LOGITS, other, 40, 50, 0.3)


def test_masks_of_a_deploy_form_still_exclude_one_another_when_resized() -> None:
    masks = decide(LOGITS, SOFTMAX).astype(np.uint8)
    np.testing.assert_array_equal(resize_masks(masks, SOFTMAX, 40, 50), masks > 0)
    for size in ((97, 61), (20, 25), (7, 133)):
        resized = resize_masks(masks, SOFTMAX, *size)
        assert (resized.sum(axis=0) <= 1).all()
        assert resized.any()
    halves = np.zeros((3, 4, 4), np.uint8)
    halves[0, :, :2] = halves[1, :, 2:] = 1  # no background anywhere
    np.testing.assert_array_equal(resize_masks(halves, SOFTMAX, 4, 5).sum(axis=0), 1)
    assert (resize_masks(halves, SIGMOID, 4, 5).sum(axis=0) == 2).any()


def test_resizing_and_subtracting_the_background_commute() -> None:
    network = np.random.default_rng(3).normal(0, 2, (4, 8, 8)).astype(np.float32)
    from tumorseg_runtime.processing.postprocess import resize_logits

    resized = resize_logits(network, 21, 30)
    masks = masks_from_logits(network[1:] - network[:1], SOFTMAX, 21, 30)
    clear = np.sort(resized, axis=0)[-1] - np.sort(resized, axis=0)[-2] > 1e-5
    for number, mask in enumerate(masks, 1):
        np.testing.assert_array_equal(mask[clear], (resized.argmax(axis=0) == number)[clear])
