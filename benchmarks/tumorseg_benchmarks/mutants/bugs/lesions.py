"""Bugs of lesions, classes and probability maps that need more than one lesion, class or size to show."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.mutants.bugs.postprocess import FIND, decided_by, lesions, measured
from tumorseg_benchmarks.mutants.mutant import Apply, Device, Mutant, patched
from tumorseg_benchmarks.mutants.testbed import BedNetwork
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.images.frame import Frame, Spacing
from tumorseg_runtime.inference.prediction import Prediction
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.processing import postprocess
from tumorseg_runtime.processing.postprocess import Lesion, find_lesions, masks_from_logits
from tumorseg_runtime.processing.spacing import measure as _measure

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]

_resize_logits, _probabilities = postprocess.resize_logits, postprocess.probabilities
_decide = Segmenter.decide  # all as they are before anything is broken


def decided(change: Callable[[Prediction], Prediction]) -> Apply:
    """Another prediction of every image."""

    def decide(self: Segmenter, frame: Frame, answer: npt.NDArray[Any]) -> Prediction:
        return change(_decide(self, frame, answer))

    return patched(("tumorseg_runtime.inference.segmenter.Segmenter.decide", decide))


def labels_exchanged(found: Prediction) -> Prediction:
    """Lesions of one class labelled with another."""
    classes = found.contract.classes
    other = dict(zip(classes, classes[::-1], strict=True))
    return replace(found, lesions=tuple(replace(one, label=other[one.label]) for one in found.lesions))


def of_first_class(found: Prediction) -> Prediction:
    """Lesions of all classes but the first lost."""
    first = found.contract.classes[0]
    return replace(found, lesions=tuple(one for one in found.lesions if one.label == first))


def united(found: Prediction) -> Prediction:
    """Every class has the pixels of all classes."""
    return replace(found, masks=np.repeat(found.masks.any(axis=0, keepdims=True), len(found.masks), 0))


def resized(rule: Callable[[FloatArray, int, int], FloatArray]) -> Apply:
    """Another resize of logits, for masks, probability maps and margins alike."""

    def other(logits: FloatArray, height: int, width: int) -> FloatArray:
        if logits.shape[1:] == (height, width):
            return logits
        return np.asarray(rule(logits, height, width), np.float32)

    return patched(("tumorseg_runtime.processing.postprocess.resize_logits", other))


def by_opencv(interpolation: int) -> Apply:
    """Another of OpenCV's rules."""

    def rule(logits: FloatArray, height: int, width: int) -> FloatArray:
        return np.stack([cv2.resize(one, (width, height), interpolation=interpolation) for one in logits])

    return resized(rule)


def aligned(logits: FloatArray, height: int, width: int) -> FloatArray:
    """Bilinear with aligned corners."""
    import torch

    found = torch.nn.functional.interpolate(
        torch.from_numpy(logits.copy())[None], (height, width), mode="bilinear", align_corners=True
    )
    return np.asarray(found[0].numpy())


def beyond_network(change: Callable[[BoolArray], BoolArray]) -> Apply:
    """Right for images up to the network's size alone."""

    def rule(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
        masks = masks_from_logits(logits, contract, height, width)
        return change(masks) if height > logits.shape[1] and width > logits.shape[2] else masks

    return decided_by(rule)


def mapped(change: Callable[[FloatArray, Contract, int, int], npt.NDArray[np.floating[Any]]]) -> Apply:
    """Another probability map: change(logits, contract, height, width)."""

    def other(logits: FloatArray, contract: Contract, height: int, width: int) -> FloatArray:
        return np.asarray(change(logits, contract, height, width), np.float32)

    return patched(("tumorseg_runtime.inference.prediction.probabilities", other))


def of_hole(mask: BoolArray, label: str) -> tuple[Lesion, ...]:
    """A lesion with a hole has the border of the hole."""
    found = find_lesions(mask, label)
    borders, hierarchy = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    holes = {}
    for border, (_, _, _, parent) in zip(borders, hierarchy[0].tolist() if borders else (), strict=True):
        if parent >= 0:
            outer = tuple(map(tuple, borders[parent][:, 0].tolist()))
            holes[outer] = tuple(map(tuple, border[:, 0].tolist()))
    return tuple(replace(one, contour=holes.get(one.contour, one.contour)) for one in found)


def by_place(mask: BoolArray, label: str) -> tuple[Lesion, ...]:
    """Lesions from left to right."""
    return tuple(sorted(find_lesions(mask, label), key=lambda one: one.box))


def few(mask: BoolArray, label: str) -> tuple[Lesion, ...]:
    """At most three lesions of a class."""
    return find_lesions(mask, label)[:3]


def between_centres(lesion: Lesion, spacing: Spacing) -> Lesion:
    """The largest distance between centres of pixels, in place of corners."""
    points = np.array(lesion.contour, np.float64) * (spacing.column_mm, spacing.row_mm)
    steps = points[:, None] - points[None]
    return replace(lesion, diameter_mm=float(np.sqrt((steps**2).sum(axis=2).max())))


def of_the_box(lesion: Lesion, spacing: Spacing) -> Lesion:
    """The box's diagonal for the diameter."""
    width, height = lesion.box_mm or (0, 0)
    return replace(lesion, diameter_mm=float(np.hypot(width, height)))


@contextlib.contextmanager
def counted(network: BedNetwork, folder: Path) -> Iterator[Device]:
    """The first fifty predictions are right."""
    seen = [0]

    def decide(self: Segmenter, frame: Frame, answer: npt.NDArray[Any]) -> Prediction:
        seen[0] += 1
        found = _decide(self, frame, answer)
        return found if seen[0] <= 50 else replace(found, masks=found.masks[:, ::-1])

    with mock.patch("tumorseg_runtime.inference.segmenter.Segmenter.decide", decide):
        yield Device(network.bundle, file_changed=False)


@contextlib.contextmanager
def measured_before(network: BedNetwork, folder: Path) -> Iterator[Device]:
    """An image without a spacing takes that of the one before."""
    last: list[Sequence[Spacing]] = [()]

    def measure(lesion: Lesion, spacings: Sequence[Spacing]) -> Lesion:
        last[0] = spacings or last[0]
        return _measure(lesion, last[0])

    with mock.patch("tumorseg_runtime.inference.segmenter.measure", measure):
        yield Device(network.bundle, file_changed=False)


MUTANTS = tuple(
    Mutant(name, "postprocess", apply)
    for name, apply in (
        ("labels of the classes exchanged", decided(labels_exchanged)),
        ("lesions of the first class alone", decided(of_first_class)),
        ("masks of all classes united", decided(united)),
        ("logits resized to the nearest", by_opencv(cv2.INTER_NEAREST)),
        ("logits resized by areas", by_opencv(cv2.INTER_AREA)),
        ("logits resized by cubic splines", by_opencv(cv2.INTER_CUBIC)),
        ("logits resized with aligned corners", resized(aligned)),
        ("right up to the network's size alone", beyond_network(lambda masks: np.roll(masks, 1, 2))),
        ("wrong from the 51st prediction on", counted),
        ("probability map of the other class", mapped(lambda *of: _probabilities(*of)[::-1])),
        (
            "probability map at the network's size",
            mapped(lambda logits, contract, *size: _probabilities(logits, contract, *logits.shape[1:])),
        ),
        (
            "probability map resized in place of logits",
            mapped(
                lambda logits, c, h, w: _resize_logits(_probabilities(logits, c, *logits.shape[1:]), h, w)
            ),
        ),
        ("probability map of 8 bits", mapped(lambda *of: np.round(_probabilities(*of) * 255) / 255)),
        ("contour of the hole", patched((FIND, of_hole))),
        ("lesions from left to right", patched((FIND, by_place))),
        ("at most three lesions", patched((FIND, few))),
        (
            "box with one pixel more",
            lesions(lambda one: replace(one, box=(*one.box[:2], one.box[2] + 1, one.box[3] + 1))),
        ),
        (
            "centroid of corners",
            lesions(lambda one: replace(one, centroid=(one.centroid[0] + 0.5, one.centroid[1] + 0.5))),
        ),
        (
            "centroid in the middle of the box",
            lesions(
                lambda one: replace(
                    one,
                    centroid=(one.box[0] + (one.box[2] - 1) / 2, one.box[1] + (one.box[3] - 1) / 2),
                )
            ),
        ),
        ("contour of half its points", lesions(lambda one: replace(one, contour=one.contour[::2]))),
        ("diameter between centres", measured(between_centres)),
        ("diameter of the box", measured(of_the_box)),
        ("millimetres of the image before", measured_before),
    )
)
