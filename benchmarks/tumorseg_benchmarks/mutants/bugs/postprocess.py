"""Bugs behind the network: what a device makes of logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.mutants.mutant import Apply, Mutant, patched
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.images.frame import Spacing
from tumorseg_runtime.processing.decision import decide
from tumorseg_runtime.processing.postprocess import (
    Lesion,
    close_share,
    find_lesions,
    masks_from_logits,
    probabilities,
)
from tumorseg_runtime.processing.spacing import measure as _measure

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]

SEGMENTER = "tumorseg_runtime.inference.segmenter"
FIND, CLOSE = f"{SEGMENTER}.find_lesions", "tumorseg_runtime.inference.prediction.close_share"


def decided_by(rule: Any) -> Apply:
    """Another decision: rule(logits (K, h, w), contract, height, width) -> masks."""
    return patched(("tumorseg_runtime.inference.segmenter.masks_from_logits", rule))


def sigmoid_twice(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """The sigmoid of the sigmoid, against the threshold."""
    once = probabilities(logits, contract, height, width)
    return decide(once, contract)  # as if it were a logit


def threshold_of_probability(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """Logits against the threshold of probabilities."""
    lowered = logits - np.float32(contract.threshold or 0.5) + np.float32(contract.logit_threshold)
    return masks_from_logits(lowered, contract, height, width)


def at_network_size(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """Never brought to the image's size."""
    return masks_from_logits(logits, contract, *logits.shape[1:])


def mask_resized(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """Decided at the network's size, then enlarged by nearest neighbours."""
    small = at_network_size(logits, contract, height, width)
    rows, columns = (np.arange(n) * m // n for n, m in zip((height, width), logits.shape[1:], strict=True))
    return small[:, rows][:, :, columns]


def cut(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """One column too far to the right, the last one lost."""
    masks = masks_from_logits(logits, contract, height, width)
    return np.pad(masks[:, :, :-1], ((0, 0), (0, 0), (1, 0)))


def transposed_size(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """Height and width of the image exchanged."""
    return masks_from_logits(logits, contract, width, height)


def probabilities_resized(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """The sigmoid before the resize, not after it."""
    small = probabilities(logits, contract, *logits.shape[1:])
    resized = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in small]
    return np.stack(resized) >= np.float32(contract.threshold or 0.5)


def largest_only(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """All lesions but the largest are taken for noise."""
    masks = masks_from_logits(logits, contract, height, width)
    for mask in masks:
        count, components, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        if count > 1:
            mask &= components == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return masks


def square_transposed(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """Rows for columns, where nothing else shows it."""
    masks = masks_from_logits(logits, contract, height, width)
    return masks.swapaxes(1, 2) if height == width else masks


def at_half(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """A probability of one half, whatever the contract says."""
    return masks_from_logits(logits, replace(contract, threshold=0.5), height, width)


def filled(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """Every lesion without its holes."""
    masks = masks_from_logits(logits, contract, height, width).astype(np.uint8)
    for mask in masks:
        borders, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(mask, borders, -1, 1, cv2.FILLED)
    return masks.astype(np.bool_)


def without_dots(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """Components of a single pixel taken for noise."""
    masks = masks_from_logits(logits, contract, height, width)
    for mask in masks:
        for lesion in find_lesions(mask, ""):
            if lesion.area_px == 1:
                mask[lesion.box[1], lesion.box[0]] = False
    return masks


def lesions(change: Callable[[Lesion], Lesion]) -> Apply:
    """Another report of every lesion."""
    return patched((FIND, lambda mask, label: tuple(change(one) for one in find_lesions(mask, label))))


def boxed(lesion: Lesion) -> Lesion:
    """The corners of the box for the border."""
    left, top, width, height = lesion.box
    right, bottom = left + width - 1, top + height - 1
    return replace(lesion, contour=((left, top), (left, bottom), (right, bottom), (right, top)))


def four_connected(mask: BoolArray, label: str) -> tuple[Lesion, ...]:
    """Components that touch at a corner alone are two."""
    count, components = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    return tuple(lesion for index in range(1, count) for lesion in find_lesions(components == index, label))


def measured(change: Callable[[Lesion, Spacing], Lesion]) -> Apply:
    """Other millimetres, where there are some."""

    def measure(lesion: Lesion, spacings: Sequence[Spacing]) -> Lesion:
        found = _measure(lesion, spacings)
        return found if found.area_mm2 is None else change(found, spacings[0])

    return patched((f"{SEGMENTER}.measure", measure))


def with_nan(found: FloatArray) -> FloatArray:
    """A division by zero in one pixel."""
    found[0, 0, 0] = np.nan
    return found


def mapped(change: Callable[[FloatArray], Any]) -> Apply:
    """Another probability map."""

    def other(logits: FloatArray, contract: Contract, height: int, width: int) -> FloatArray:
        return np.asarray(change(probabilities(logits, contract, height, width)), np.float32)

    return patched(("tumorseg_runtime.inference.prediction.probabilities", other))


MUTANTS = tuple(
    Mutant(name, "postprocess", apply)
    for name, apply in (
        ("double sigmoid", decided_by(sigmoid_twice)),
        ("threshold of probabilities on logits", decided_by(threshold_of_probability)),
        ("mask at the network's size", decided_by(at_network_size)),
        ("mask resized in place of logits", decided_by(mask_resized)),
        ("off-by-one crop of the mask", decided_by(cut)),
        ("mask's height and width exchanged", decided_by(transposed_size)),
        ("mask upside down", decided_by(lambda *of: masks_from_logits(*of)[:, ::-1])),
        ("mask mirrored", decided_by(lambda *of: masks_from_logits(*of)[:, :, ::-1])),
        ("mask of a square image transposed", decided_by(square_transposed)),
        ("threshold ignored: 0.5", decided_by(at_half)),
        ("mask inverted", decided_by(lambda *of: ~masks_from_logits(*of))),
        ("holes of the mask filled", decided_by(filled)),
        ("lesions of one pixel dropped", decided_by(without_dots)),
        ("classes of the mask exchanged", decided_by(lambda *of: masks_from_logits(*of)[::-1])),
        (
            "contours off by one",
            lesions(lambda one: replace(one, contour=tuple((x + 1, y) for x, y in one.contour))),
        ),
        ("contours turned", lesions(lambda one: replace(one, contour=tuple((y, x) for x, y in one.contour)))),
        ("contour of the box", lesions(boxed)),
        ("area beyond 16 bits cut", lesions(lambda one: replace(one, area_px=one.area_px % 65536))),
        ("box turned", lesions(lambda one: replace(one, box=(one.box[1], one.box[0], *one.box[2:])))),
        (
            "box without its last pixel",
            lesions(lambda one: replace(one, box=(*one.box[:2], one.box[2] - 1, one.box[3] - 1))),
        ),
        (
            "box and centroid exchanged",
            lesions(lambda one: replace(one, centroid=(float(one.box[0]), float(one.box[1])))),
        ),
        (
            "centroid rounded",
            lesions(lambda one: replace(one, centroid=(round(one.centroid[0]), round(one.centroid[1])))),
        ),
        ("centroid turned", lesions(lambda one: replace(one, centroid=one.centroid[::-1]))),
        ("only the first lesion", patched((FIND, lambda mask, label: find_lesions(mask, label)[:1]))),
        ("smallest lesion lost", patched((FIND, lambda mask, label: find_lesions(mask, label)[:-1]))),
        ("no lesions at all", patched((FIND, lambda mask, label: ()))),
        ("lesions in reverse order", patched((FIND, lambda mask, label: find_lesions(mask, label)[::-1]))),
        ("lesions joined at sides alone", patched((FIND, four_connected))),
        ("lesions under another class", lesions(lambda one: replace(one, label=f"{one.label} "))),
        ("area in mm of a square", measured(lambda one, s: replace(one, area_mm2=one.area_px * s.row_mm**2))),
        ("box in mm turned", measured(lambda one, s: replace(one, box_mm=(one.box_mm or (0, 0))[::-1]))),
        (
            "diameter in pixels",
            measured(lambda one, s: replace(one, diameter_mm=(one.diameter_mm or 0) / s.row_mm)),
        ),
        (
            "no millimetres",
            measured(lambda one, s: replace(one, area_mm2=None, box_mm=None, diameter_mm=None)),
        ),
        ("probability map through a second sigmoid", mapped(lambda p: 1 / (1 + np.exp(-p)))),
        ("probability map inverted", mapped(lambda p: 1 - p)),
        ("probability map upside down", mapped(lambda p: p[:, ::-1])),
        ("probability map of the mask", mapped(lambda p: (p >= 0.5).astype(np.float32))),
        ("probability map with a pixel that is no number", mapped(with_nan)),
        (
            "margin of twice the band",
            patched((CLOSE, lambda *of: close_share(of[0], of[1], of[2], of[3], 2 * of[4]))),
        ),
        (
            "margin of the first class",
            patched((CLOSE, lambda *of: close_share(of[0][:1], *of[1:]))),
        ),
        ("margin in percent", patched((CLOSE, lambda *of: 100 * close_share(*of)))),
    )
) + tuple(
    Mutant(name, "postprocess", apply, late=True)
    for name, apply in (
        ("probabilities resized in place of logits", decided_by(probabilities_resized)),
        ("only the largest lesion kept", decided_by(largest_only)),
    )
)
