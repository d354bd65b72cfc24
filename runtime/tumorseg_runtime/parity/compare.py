"""Parity: does an artefact still decide what PyTorch decided? numpy and OpenCV only.

Three floors use it: export refuses what breaks it, a device certifies itself with it, benchmarks study
it. Compared per image, each against a budget that depends on the precision:

- the preprocessed tensor, bit by bit (no budget: one differing bit is a breach);
- the logits: largest and mean absolute error in units of the standard deviation of PyTorch's logits, and
  their cosine with PyTorch's;
- the decisions (`tumorseg_runtime.parity.mask_diff`): pixels whose mask flips, for each pixel of its border;
  those of them that no error of the logits explains (no budget); lesions that appear or vanish, and the
  distance of the borders; at the network's size, and at the image's own where the masks made there are given.

Pixels that flip are limited in sum over all images, too. Values that are not finite are always a breach, on
either side.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import SOFTMAX, Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.parity.budget import BUDGETS, Budget, decision_breaches, number_breaches
from tumorseg_runtime.parity.mask_diff import Decisions, compare_masks, mask_dice
from tumorseg_runtime.parity.report import ImageParity, ParityReport, summary
from tumorseg_runtime.parity.rules import bands_of, decided_rule, distance_rule, resized_rule

__all__ = [
    "BUDGETS", "Budget", "Decisions", "FinalMasks", "ImageParity", "ParityReport", "compare_image",
    "logit_scale", "mask_dice", "summary",
]  # fmt: skip

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]

# Of the range of an image's logits: what rounding in a float32 resize may change (measured: 7e-8, x86).
RESIZE_ROUNDING = 2.0**-16


@dataclasses.dataclass(frozen=True, eq=False)
class FinalMasks:
    """What the artefact's side decided on an image in the end: bool (K, H, W), and the image's own size in
    pixels, which comes from the image and never from the masks."""

    masks: BoolArray
    height: int
    width: int


def logit_scale(references: Sequence[FloatArray]) -> float:
    """Standard deviation of PyTorch's logits over a set of images: the unit of `relative_error`.

    Raises InputError where it is zero or not finite: such a network decides nothing.
    """
    scale = float(np.std(np.stack(references), dtype=np.float64))
    if not math.isfinite(scale) or scale == 0:
        raise InputError(
            f"PyTorch's logits have standard deviation {scale}, expected a positive number: "
            "the network gives constant or broken output; train it again"
        )
    return scale


def compare_image(
    image: str,
    reference: FloatArray,
    candidate: FloatArray,
    *,
    contract: Contract,
    scale: float,
    budget: Budget,
    tensors: tuple[FloatArray, FloatArray] | None = None,
    final: FinalMasks | None = None,
) -> ImageParity:
    """Compare one image's logits (K, H, W), and its preprocessed tensors (expected, got) where given.

    final: what the artefact's side decided in the end, which is held against PyTorch's logits, resized by the
        rule; masks of another size than the image's are a breach.
    """
    breaches = []
    tensor_differs = None
    if tensors is not None:
        tensor_differs = differing_bits(*tensors)
        if tensor_differs:
            breaches.append(f"{tensor_differs} values of the preprocessed tensor differ, expected 0")
    if reference.shape != candidate.shape:
        breaches.append(f"logits have shape {candidate.shape}, expected {reference.shape}")
        return ImageParity(
            image, tensor_differs, math.inf, math.inf, math.inf, reference.size, reference.size, 0.0,
            tuple(breaches),
        )  # fmt: skip
    broken = int(np.count_nonzero(~np.isfinite(candidate)) + np.count_nonzero(~np.isfinite(reference)))
    if broken:
        breaches.append(f"{broken} logits are not finite, expected 0")
        error, cosine = np.full(reference.shape, np.inf), None
    else:
        error, cosine = np.abs(candidate.astype(np.float64) - reference), _cosine(reference, candidate)
    max_error, mean_error = float(error.max()), float(error.mean())
    at_network = compare_masks(
        decided_rule(reference, contract),
        decided_rule(candidate, contract),
        np.abs(distance_rule(reference, contract)) <= max_error,
        max_error,
    )
    breaches += number_breaches(max_error / scale, mean_error / scale, max_error, cosine, budget)
    wrong, amounts = decision_breaches(at_network, budget)
    at_image = None
    if final is not None and np.isfinite(reference).all():
        at_image, *lines = _compare_final(reference, final, contract, max_error, budget)
        wrong, amounts = wrong + lines[0], amounts + lines[1]
    return ImageParity(
        image, tensor_differs, max_error, mean_error, max_error / scale, reference.size, at_network.flipped,
        at_network.dice, (*breaches, *wrong, *amounts), cosine, at_network, at_image, amounts=tuple(amounts),
    )  # fmt: skip


def _compare_final(
    reference: FloatArray, final: FinalMasks, contract: Contract, max_error: float, budget: Budget
) -> tuple[Decisions | None, list[str], list[str]]:
    """The artefact's masks at the image's own size, and what they break there: wrong, too much."""
    masks, expected = final.masks, (len(reference), final.height, final.width)
    if masks.shape != expected:
        return None, [f"masks have shape {masks.shape}, expected {expected} as the image"], []
    band = max_error + RESIZE_ROUNDING * float(np.ptp(reference))
    ours, near = np.empty(expected, np.bool_), np.empty(expected, np.bool_)
    for rows in bands_of(final.height, final.width):
        resized = resized_rule(reference, final.height, final.width, rows)
        ours[:, rows] = decided_rule(resized, contract)
        near[:, rows] = np.abs(distance_rule(resized, contract)) <= band
    found = compare_masks(ours, masks, near, band, _wide(reference, final))
    wrong, amounts = (
        [f"at {final.height}x{final.width}: {line}" for line in lines]
        for lines in decision_breaches(found, budget)
    )
    return found, wrong, amounts


def _wide(reference: FloatArray, final: FinalMasks) -> float:
    """Pixels of the image for one of the network, along a line; at least 1."""
    return max(1.0, math.sqrt(final.height * final.width / reference[0].size))


def compare_final_masks(
    image: str,
    reference: FloatArray,
    final: FinalMasks,
    *,
    contract: Contract,
    allowed: float,
    budget: Budget,
    resizes_masks: bool = True,
    tensors: tuple[FloatArray, FloatArray] | None = None,
) -> ImageParity:
    """Compare masks at the image's own size with PyTorch's logits, where masks alone came.

    allowed: by how much logits may err: pixels that this decides otherwise may be.
    resizes_masks: of a deploy form, whose masks of 0 and 1 are resized; the resize is monotonic: so the masks
        lie between those of a network that decides all such pixels as outside and one that decides them as
        inside, the other classes the other way about. False where logits were resized, and decided then.
    """
    differs = differing_bits(*tensors) if tensors else None
    breaches = [f"{differs} values of the preprocessed tensor differ, expected 0"] if differs else []
    masks, expected = final.masks, (len(reference), final.height, final.width)
    nan = math.nan
    if masks.shape != expected:
        breaches.append(f"masks have shape {masks.shape}, expected {expected} as the image")
        return ImageParity(
            image, differs, nan, nan, nan, reference.size, reference.size, 0.0, tuple(breaches)
        )

    def resized(shift: float) -> npt.NDArray[np.float64]:
        """By how much the masks are inside where every decision is harder by `shift`; below 0 outside."""
        size = final.height, final.width
        if not resizes_masks:
            return distance_rule(resized_rule(reference, *size), contract) - shift
        distance = distance_rule(reference, contract)
        own = resized_rule(_at_least(distance, shift), *size)
        if contract.rule != SOFTMAX:
            return own - 0.5
        background = -reference.max(axis=0, keepdims=True).astype(np.float64)
        rivals = resized_rule(_at_least(np.concatenate([background, distance]), -shift), *size)
        against = [np.delete(rivals, number, axis=0).max(axis=0) for number in range(1, len(rivals))]
        return np.asarray((own - np.stack(against)) / 2)

    rounding = RESIZE_ROUNDING * (1.0 if resizes_masks else float(np.ptp(reference)))
    certain, possible = resized(allowed) >= rounding, resized(-allowed) >= -rounding
    unexplained = np.where(certain, ~masks, masks & ~possible)
    edge = resized(0)
    ours = np.where(np.abs(edge) <= rounding, masks, edge >= 0)  # on the edge either is right
    found = compare_masks(ours, masks, ~unexplained, allowed, _wide(reference, final))
    wrong, amounts = decision_breaches(found, budget)
    return ImageParity(
        image, differs, nan, nan, nan, found.pixels, found.flipped, found.dice, (*breaches, *wrong, *amounts),
        None, None, found, amounts=tuple(amounts),
    )  # fmt: skip


def _at_least(distance: npt.NDArray[np.float64], shift: float) -> FloatArray:
    """1 where a decision is inside by at least `shift`, else 0."""
    return np.asarray(distance >= shift, np.float32)


def _cosine(reference: FloatArray, candidate: FloatArray) -> float | None:
    """Cosine of the angle between two sets of finite logits; None where one is zero throughout."""
    a, b = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
    # not by BLAS, whose threads cost more than the products of a small image
    length = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return min(1.0, float((a * b).sum()) / length) if length else None


def differing_bits(expected: npt.NDArray[Any], got: npt.NDArray[Any]) -> int:
    """Elements of two tensors whose bits differ; all of them where shape or dtype does."""
    if expected.shape != got.shape or expected.dtype != got.dtype:
        return expected.size
    unsigned = f"u{expected.dtype.itemsize}"
    return int(np.count_nonzero(expected.view(unsigned) != got.view(unsigned)))
