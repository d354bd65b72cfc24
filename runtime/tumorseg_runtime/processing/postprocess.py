"""Postprocessing, the only one of the project: logits -> mask at the original size, with its lesions.

Logits (not probabilities) are resized bilinearly with half-pixel centres, then decided by the contract's rule
(`tumorseg_runtime.processing.decision`); a lesion is an 8-connected component of a class's mask. A network in
its deploy form has decided already: its masks are resized by the same rule.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import SIGMOID, Contract
from tumorseg_runtime.processing.decision import decide, distances, to_probabilities

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Lesion:
    """One connected component of a mask.

    label: name of the class.
    area_px: area in pixels of the original image.
    box: left, top, width, height in pixels of the original image.
    centroid: x, y in pixels of the original image.
    contour: outer border as (x, y) points in pixels of the original image.
    area_mm2, box_mm (width, height), diameter_mm (largest distance between two corners of its pixels):
        None where the input does not say how far apart its pixels are
        (`tumorseg_runtime.images.frame`).
    """

    label: str
    area_px: int
    box: tuple[int, int, int, int]
    centroid: tuple[float, float]
    contour: tuple[tuple[int, int], ...] = dataclasses.field(repr=False)
    area_mm2: float | None = None
    box_mm: tuple[float, float] | None = None
    diameter_mm: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dict(vars(self))  # dataclasses.asdict copies each point of the contour


def resize_logits(logits: FloatArray, height: int, width: int) -> FloatArray:
    """float32 (K, h, w) -> float32 (K, height, width), bilinear, half-pixel centres, no antialiasing."""
    if logits.shape[1:] == (height, width):
        return logits
    resized = np.empty((len(logits), height, width), np.float32)
    for plane, whole in zip(logits, resized, strict=True):
        cv2.resize(plane, (width, height), dst=whole, interpolation=cv2.INTER_LINEAR)
    return resized


def masks_from_logits(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """Decide every pixel: float32 logits (K, h, w) -> bool (K, height, width)."""
    return decide(resize_logits(logits, height, width), contract)


def resize_masks(masks: npt.NDArray[np.uint8], contract: Contract, height: int, width: int) -> BoolArray:
    """uint8 masks of 0 and 1 (K, h, w) -> bool (K, height, width), for a network that gives no logits.

    At the network's own size these are its masks; at others the border lies where the resized mask is one
    half (where one class excludes another: where it exceeds what is left of the background, and the others),
    up to a pixel of the network away from where resized logits cross it.
    """
    if masks.shape[1:] == (height, width):
        return masks.astype(np.bool_)
    shares = resize_logits(masks.astype(np.float32), height, width)
    if contract.rule == SIGMOID:
        return np.asarray(shares >= np.float32(0.5))
    return decide(shares - (1 - shares.sum(axis=0)), contract)


def probabilities(logits: FloatArray, contract: Contract, height: int, width: int) -> FloatArray:
    """Those of the resized logits by the contract's rule: float32 (K, h, w) -> float32 (K, height, width)."""
    return np.asarray(to_probabilities(resize_logits(logits, height, width), contract), np.float32)


def close_share(logits: FloatArray, contract: Contract, height: int, width: int, band: float) -> float:
    """Share of the decisions, 0..1, whose resized logits lie at most `band` from another."""
    distance = np.abs(distances(resize_logits(logits, height, width), contract))
    return float(np.count_nonzero(distance <= np.float32(band)) / distance.size)


def find_lesions(mask: BoolArray, label: str) -> tuple[Lesion, ...]:
    """Connected components of a mask (H, W), largest first."""
    pixels = np.ascontiguousarray(mask).view(np.uint8)
    _, components, stats, centroids = cv2.connectedComponentsWithStats(pixels, connectivity=8)
    # All borders in one pass; one without a parent is the outer border of the component that it lies on.
    borders, hierarchy = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    contours = {}
    for border, (_, _, _, parent) in zip(borders, hierarchy[0].tolist() if borders else (), strict=True):
        if parent < 0:
            x, y = border[0, 0]
            contours[int(components[y, x])] = tuple(map(tuple, border[:, 0].tolist()))
    lesions = [
        Lesion(label, area, (left, top, width, height), (x, y), contours[index])
        for index, ((left, top, width, height, area), (x, y)) in enumerate(
            zip(stats.tolist(), centroids.tolist(), strict=True)
        )
        if index  # 0 is the background
    ]
    return tuple(sorted(lesions, key=lambda lesion: (-lesion.area_px, lesion.box, lesion.contour)))
