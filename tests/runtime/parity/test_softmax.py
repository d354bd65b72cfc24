"""Bugs of the decision rule softmax that the one loop must see, through the door that serves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime.backends import open_session
from tumorseg_runtime.conformance.files import vectors
from tumorseg_runtime.conformance.network import conformance_bundle, expected_logits
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.session import Session
from tumorseg_runtime.inference.segmenter import Segmenter, door_of
from tumorseg_runtime.parity.compare import FinalMasks, compare_final_masks, compare_image
from tumorseg_runtime.parity.conformance import BUDGETS, RuleSession
from tumorseg_runtime.parity.reference import Golden
from tumorseg_runtime.parity.replay import Plan, replay
from tumorseg_runtime.parity.rules import decided_rule, tensor_rule
from tumorseg_runtime.processing.decision import decide
from tumorseg_runtime.processing.postprocess import (
    close_share,
    masks_from_logits,
    probabilities,
    resize_logits,
    resize_masks,
)

Array = npt.NDArray[Any]
FP32 = BUDGETS["fp32"]
BUNDLE = conformance_bundle("rgb", "softmax")
SIGMOID = dataclasses.replace(BUNDLE.contract, rule="sigmoid", threshold=0.5)
PLAN = Plan(single=2, written=2, lists=(3,))


def references() -> list[Golden]:
    named = {vector.name: vector.pixels for vector in vectors()}
    found = []
    for name in ("rgb.png", "wide-rgb.png", "network-size-rgb.png"):
        tensor = tensor_rule(named[name], BUNDLE.contract)
        logits = expected_logits("rgb", tensor).astype(np.float32)
        found.append(Golden(name, named[name], tensor, logits))
    return found


REFERENCES = references()


def breaches(session: Session) -> tuple[str, ...]:
    return replay(door_of(BUNDLE, session), REFERENCES, FP32, PLAN, artefact="softmax").breaches


def test_classes_compete_in_these_images() -> None:
    for item in REFERENCES:
        assert (item.logits > 0).all(axis=0).any()


def test_a_right_door_passes() -> None:
    assert breaches(RuleSession("rgb")) == ()
    for backend in ("onnxruntime", "onnxruntime-deploy"):
        assert breaches(open_session(BUNDLE, backend=backend, threads=1)) == ()


def without_background(logits: Array, contract: Contract, height: int, width: int) -> Array:
    winner = resize_logits(logits, height, width).argmax(axis=0)
    return np.stack([winner == number for number in range(len(logits))])


def background_last(logits: Array, contract: Contract, height: int, width: int) -> Array:
    """The winner's number is taken for the class's, as if the background came behind the classes."""
    masks = masks_from_logits(logits, contract, height, width)
    return np.stack([~masks.any(axis=0), *masks[:-1]])


def softmax_twice(logits: Array, contract: Contract, height: int, width: int) -> Array:
    return decide(probabilities(logits, contract, height, width), contract)


def probabilities_resized(logits: Array, contract: Contract, height: int, width: int) -> Array:
    shares = resize_logits(probabilities(logits, contract, *logits.shape[1:]), height, width)
    return decide(shares - (1 - shares.sum(axis=0)), contract)


def by_sigmoid(logits: Array, contract: Contract, height: int, width: int) -> Array:
    return masks_from_logits(logits, SIGMOID, height, width)


SEGMENTER = "tumorseg_runtime.inference.segmenter"
PREDICTION = "tumorseg_runtime.inference.prediction"
BUGS: dict[str, tuple[str, Callable[..., Any]]] = {
    "sigmoid of each class in place of argmax": (f"{SEGMENTER}.masks_from_logits", by_sigmoid),
    "argmax without the background": (f"{SEGMENTER}.masks_from_logits", without_background),
    "background last": (f"{SEGMENTER}.masks_from_logits", background_last),
    "classes exchanged": (f"{SEGMENTER}.masks_from_logits", lambda *of: masks_from_logits(*of)[::-1]),
    "softmax twice": (f"{SEGMENTER}.masks_from_logits", softmax_twice),
    "probabilities resized in place of logits": (f"{SEGMENTER}.masks_from_logits", probabilities_resized),
    "probabilities by sigmoid": (
        f"{PREDICTION}.probabilities",
        lambda logits, contract, *size: probabilities(logits, SIGMOID, *size),
    ),
    "probabilities without the background": (
        f"{PREDICTION}.probabilities",
        lambda *of: (found := probabilities(*of)) / found.sum(axis=0),
    ),
    "probabilities through a second softmax": (
        f"{PREDICTION}.probabilities",
        lambda logits, *rest: probabilities(probabilities(logits, *rest), *rest),
    ),
    "margin against the background alone": (
        f"{PREDICTION}.close_share",
        lambda logits, contract, *rest: close_share(logits, SIGMOID, *rest),
    ),
}  # fmt: skip


@pytest.mark.parametrize("bug", BUGS)
def test_bugs_are_seen(bug: str) -> None:
    place, other = BUGS[bug]
    with mock.patch(place, other):
        assert breaches(RuleSession("rgb"))


@pytest.mark.parametrize(
    "other",
    [
        lambda masks, contract, *size: resize_masks(masks, SIGMOID, *size),
        lambda masks, *rest: resize_masks(masks[::-1], *rest),
    ],
    ids=["each class by half", "classes exchanged"],
)
def test_bugs_of_a_deploy_form_are_seen(other: Callable[..., Array]) -> None:
    session = open_session(BUNDLE, backend="onnxruntime-deploy", threads=1)
    with mock.patch(f"{SEGMENTER}.resize_masks", other):
        found = [image for image in _report(session).images if image.breaches]
    assert found


def _report(session: Session) -> Any:
    items = [*REFERENCES, *_narrow()]
    return replay(door_of(BUNDLE, session), items, FP32, Plan(lists=(len(items),)), artefact="softmax")


def _narrow() -> list[Golden]:
    """Stripes of both classes side by side, at a size where the masks are resized."""
    pixels = np.zeros((190, 270, 3), np.uint8)
    pixels[:, :, 0], pixels[:, ::2, 1], pixels[:, ::2, 2] = 250, 250, 250
    pixels = np.repeat(np.repeat(pixels[:, :90], 3, axis=1), 1, axis=0)
    tensor = tensor_rule(pixels, BUNDLE.contract)
    return [Golden("stripes", pixels, tensor, expected_logits("rgb", tensor).astype(np.float32))]


def test_a_sigmoid_bundle_decided_by_argmax_is_seen() -> None:
    bundle = conformance_bundle("rgb")
    other = dataclasses.replace(bundle.contract, rule="softmax", threshold=None)

    def by_softmax(logits: Array, contract: Contract, height: int, width: int) -> Array:
        return masks_from_logits(logits, other, height, width)

    door = Segmenter(bundle.contract, RuleSession("rgb"))
    assert replay(door, REFERENCES, FP32, PLAN, artefact="sigmoid").passed
    with mock.patch(f"{SEGMENTER}.masks_from_logits", by_softmax):
        assert not replay(door, REFERENCES, FP32, PLAN, artefact="sigmoid").passed


CONTRACT = Contract(height=64, width=64, classes=("a", "b", "c"), threshold=None, rule="softmax")
SMOOTH = resize_logits(np.random.default_rng(5).normal(0, 3, (3, 12, 12)).astype(np.float32), 64, 64)


def test_a_flip_between_two_classes_is_in_the_band_half_way() -> None:
    reference = np.full((3, 64, 64), -5, np.float32)
    reference[0], reference[1] = 4, 4 - 0.4  # 0.4 apart: an error of 0.2 in both turns them over
    reference[0, :8], reference[1, :8] = -5, -5
    other = reference.copy()
    other[0, 9, 9] -= 0.201
    other[1, 9, 9] += 0.201
    options: Any = {"contract": CONTRACT, "scale": 3.0, "budget": FP32}
    found = compare_image("a", reference, other, **options).decisions
    assert found is not None
    assert (found.flipped, found.outside) == (2, 0)  # it leaves one mask and enters another
    final = FinalMasks(decided_rule(reference, CONTRACT), 64, 64)
    final.masks[:2, 9, 9] = (False, True)
    at_image = compare_image("a", reference, reference + np.float32(0.19), **options, final=final).at_image
    assert at_image is not None
    assert at_image.outside == 2


@pytest.mark.parametrize("size", [(64, 64), (90, 133), (40, 41)])
def test_resized_masks_lie_between_the_strictest_and_the_most_generous_network(size: tuple[int, int]) -> None:
    def found(masks: Array) -> tuple[str, ...]:
        return compare_final_masks(
            "a", SMOOTH, FinalMasks(masks, *size), contract=CONTRACT, allowed=0.02, budget=FP32
        ).breaches

    random = np.random.default_rng(6)
    masks = resize_masks(decide(SMOOTH, CONTRACT).astype(np.uint8), CONTRACT, *size)
    assert found(masks) == ()
    noisy = SMOOTH + random.uniform(-0.02, 0.02, SMOOTH.shape).astype(np.float32)
    noisy_masks = resize_masks(decide(noisy, CONTRACT).astype(np.uint8), CONTRACT, *size)
    assert not [line for line in found(noisy_masks) if "further from" in line]
    assert [line for line in found(masks[[1, 0, 2]]) if "further from" in line]
    made_up = masks.copy()
    row, column = np.argwhere(~masks.any(axis=0))[0]
    made_up[2, row, column : column + 5] = True
    assert [line for line in found(made_up) if "further from" in line]
