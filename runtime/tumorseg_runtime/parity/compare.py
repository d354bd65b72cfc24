"""Parity: does an artefact still decide what PyTorch decided? numpy and OpenCV only.

Three floors use it: export refuses what breaks it, a device certifies itself with it, benchmarks study
it. Compared per image, each against a budget that depends on the precision:

- the preprocessed tensor, bit by bit (no budget: one differing bit is a breach);
- the logits: largest and mean absolute error in units of the standard deviation of PyTorch's logits, and
  their cosine with PyTorch's;
- the decisions (`tumorseg_runtime.parity.mask_diff`): pixels whose mask flips, those of them that no error
  of the logits explains (no budget), the Dice between the two masks, their lesions and the distance of their
  borders; at the network's size, and at the image's own where the masks made there are given.

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

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.parity.budget import BUDGETS, Budget
from tumorseg_runtime.parity.mask_diff import Decisions, compare_masks, mask_dice
from tumorseg_runtime.parity.rules import resized_rule

__all__ = [
    "BUDGETS", "Budget", "Decisions", "FinalMasks", "ImageParity", "ParityReport", "compare_image",
    "logit_scale", "mask_dice", "summary",
]  # fmt: skip

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]

# Of the range of an image's logits: what rounding in a float32 resize may change (measured: 7e-8, x86).
RESIZE_ROUNDING = 2.0**-16
SHOWN = 3  # breaches in a message


@dataclasses.dataclass(frozen=True, eq=False)
class FinalMasks:
    """What the artefact's side decided on an image in the end: bool (K, H, W), and the image's own size in
    pixels, which comes from the image and never from the masks."""

    masks: BoolArray
    height: int
    width: int


@dataclasses.dataclass(frozen=True)
class ImageParity:
    """Figures of one image. `tensor_differs`: elements of the preprocessed tensor whose bits differ,
    None where only logits were compared. Errors are in logits; relative_error is the largest one in standard
    deviations; they are NaN for a form that gives masks alone. cosine: between the two logits. decisions: at
    the network's size, None for such a form. at_image: at the image's own size, None where no mask was made
    there. call: how the image went through the door (`tumorseg_runtime.parity.replay`)."""

    image: str
    tensor_differs: int | None
    max_error: float
    mean_error: float
    relative_error: float
    pixels: int
    flipped: int
    dice: float
    breaches: tuple[str, ...]
    cosine: float | None = None
    decisions: Decisions | None = None
    at_image: Decisions | None = None
    call: str = ""


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """Verdict on one artefact under one backend and device, over a set of images."""

    artefact: str
    backend: str
    device: str
    precision: str
    versions: dict[str, str]
    budget: Budget
    scale: float
    images: tuple[ImageParity, ...]

    @property
    def passed(self) -> bool:
        """True where at least one image was compared and none breaks the budget."""
        return bool(self.images) and not self.breaches

    @property
    def breaches(self) -> tuple[str, ...]:
        """One line per breach: artefact, image, figure, budget; what all images break together comes last."""
        lines = [
            f"{self.artefact}: {image.image}{f' ({image.call})' if image.call else ''}: {line}"
            for image in self.images
            for line in image.breaches
        ]
        return (*lines, *(f"{self.artefact}: all images: {line}" for line in self.breaches_of_all))

    @property
    def breaches_of_all(self) -> tuple[str, ...]:
        """What the images break in sum."""
        allowed = self.budget.flipped_in_all
        flipped, pixels = (
            sum(getattr(image, name) for image in self.images) for name in ("flipped", "pixels")
        )
        if allowed is None or flipped <= max(allowed * pixels, self.budget.free_pixels):
            return ()
        return (f"{flipped} of {pixels} pixels flipped, expected at most {allowed:g} of them",)

    @property
    def worst(self) -> ImageParity:
        """The image with the most breaches, then the most flipped pixels, then the largest error."""
        return max(self.images, key=lambda i: (len(i.breaches), i.flipped, i.max_error))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an error that is not finite, or not known, is null."""
        values = dataclasses.asdict(self)
        for image in values["images"]:
            for name in ("max_error", "mean_error", "relative_error"):
                image[name] = image[name] if math.isfinite(image[name]) else None
        return {"passed": self.passed, **values}


def summary(breaches: Sequence[str]) -> str:
    """The first breaches, and how many more there are, in one line for a message."""
    more = f"; and {len(breaches) - SHOWN} more" if len(breaches) > SHOWN else ""
    return "; ".join(breaches[:SHOWN]) + more


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
    logit_threshold: float,
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
    threshold = np.float32(logit_threshold)
    max_error, mean_error = float(error.max()), float(error.mean())
    at_network = compare_masks(
        reference >= threshold,
        candidate >= threshold,
        np.abs(reference.astype(np.float64) - threshold),
        max_error,
    )
    breaches += _number_breaches(max_error / scale, mean_error / scale, max_error, cosine, budget)
    breaches += decision_breaches(at_network, budget)
    at_image = None
    if final is not None and np.isfinite(reference).all():
        at_image, lines = _compare_final(reference, final, float(threshold), max_error, budget)
        breaches += lines
    return ImageParity(
        image, tensor_differs, max_error, mean_error, max_error / scale, reference.size, at_network.flipped,
        at_network.dice, tuple(breaches), cosine, at_network, at_image,
    )  # fmt: skip


def _number_breaches(
    largest: float, mean: float, max_error: float, cosine: float | None, budget: Budget
) -> list[str]:
    """largest, mean: errors in standard deviations; max_error in logits."""
    lines = []
    if largest > budget.relative_error:
        lines.append(
            f"logit error {max_error:.3g} is {largest:.3g} standard deviations, "
            f"expected at most {budget.relative_error:g}"
        )
    if budget.mean_error is not None and mean > budget.mean_error:
        lines.append(
            f"mean logit error is {mean:.3g} standard deviations, expected at most {budget.mean_error:g}"
        )
    if budget.cosine is not None and cosine is not None and cosine < budget.cosine:
        lines.append(f"cosine between the logits is {cosine:.7f}, expected at least {budget.cosine:g}")
    return lines


def decision_breaches(found: Decisions, budget: Budget, pixels_per_pixel: float = 1.0) -> list[str]:
    """What decisions break. pixels_per_pixel: pixels of their masks for one of the network's."""
    lines = []
    free = budget.free_pixels * max(1.0, pixels_per_pixel)
    if found.outside:
        lines.append(
            f"{found.outside} pixels flipped that lie further from the threshold than the logits err "
            f"({found.band:.3g}), expected 0 {found.where}"
        )
    if found.flipped > max(budget.flipped_share * found.pixels, free):
        lines.append(
            f"{found.flipped} of {found.pixels} pixels flipped, expected at most {budget.flipped_share:g} "
            f"of them, {found.where}"
        )
    if found.flipped <= free:
        return lines
    if found.dice < budget.dice:
        lines.append(f"Dice between the masks is {found.dice:.4f}, expected at least {budget.dice:g}")
    if budget.hd95_px is not None:
        reach = budget.hd95_px * max(1.0, math.sqrt(pixels_per_pixel))
        if found.hd95_px is None or found.hd95_px > reach:
            apart = (
                "has none, one mask is empty" if found.hd95_px is None else f"is {found.hd95_px:.3g} pixels"
            )
            lines.append(f"distance of the borders (HD95) {apart}, expected at most {reach:.3g}")
    return lines


def _compare_final(
    reference: FloatArray, final: FinalMasks, threshold: float, max_error: float, budget: Budget
) -> tuple[Decisions | None, list[str]]:
    """The artefact's masks at the image's own size, and what they break there."""
    masks, expected = final.masks, (len(reference), final.height, final.width)
    if masks.shape != expected:
        return None, [f"masks have shape {masks.shape}, expected {expected} as the image"]
    resized = resized_rule(reference, final.height, final.width)
    band = max_error + RESIZE_ROUNDING * float(np.ptp(reference))
    found = compare_masks(resized >= threshold, masks, np.abs(resized - threshold), band)
    ratio = masks[0].size / reference[0].size
    return found, [
        f"at {found.height}x{found.width}: {line}" for line in decision_breaches(found, budget, ratio)
    ]


def compare_final_masks(
    image: str,
    reference: FloatArray,
    final: FinalMasks,
    *,
    logit_threshold: float,
    allowed: float,
    budget: Budget,
    tensors: tuple[FloatArray, FloatArray] | None = None,
) -> ImageParity:
    """Compare masks at the image's own size with PyTorch's logits, for a form that gives masks alone.

    allowed: how far from the threshold, in logits, a pixel of the network may be decided otherwise. Its masks
        of 0 and 1 are resized, and the resize is monotonic: so the masks lie between those of a network that
        decides all such pixels as outside and one that decides them as inside.
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
        inside = reference >= np.float32(logit_threshold + shift)
        return resized_rule(inside.astype(np.float32), final.height, final.width)

    certain, possible = resized(allowed) >= 0.5 + RESIZE_ROUNDING, resized(-allowed) >= 0.5 - RESIZE_ROUNDING
    unexplained = np.where(certain, ~masks, masks & ~possible)
    half = resized(0)
    ours = np.where(np.abs(half - 0.5) <= RESIZE_ROUNDING, masks, half >= 0.5)  # on the half either is right
    found = compare_masks(ours, masks, np.where(unexplained, np.inf, 0.0), allowed)
    breaches += decision_breaches(found, budget, masks[0].size / reference[0].size)
    return ImageParity(
        image, differs, nan, nan, nan, found.pixels, found.flipped, found.dice, tuple(breaches), None, None,
        found,
    )  # fmt: skip


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
