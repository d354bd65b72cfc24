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
from tumorseg_runtime.parity.mask_diff import Decisions, compare_masks, mask_dice, resized_rule

__all__ = [
    "BUDGETS", "Budget", "Decisions", "FinalMasks", "ImageParity", "ParityReport", "compare_image",
    "logit_scale", "mask_dice",
]  # fmt: skip

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]

# Of the range of an image's logits: what rounding in a float32 resize may change (measured: 7e-8, x86).
RESIZE_ROUNDING = 2.0**-16


@dataclasses.dataclass(frozen=True)
class Budget:
    """What is allowed per image.

    relative_error: largest logit error / standard deviation of PyTorch's logits over the set.
    flipped_share: share of the pixels whose decision may differ, 0..1.
    dice: least Dice between the two masks, 0..1; not asked of a mask in which at most
        `free_pixels` flipped, since one pixel moves the Dice of a tiny lesion at will.
    mean_error: mean logit error in the same unit. cosine: least cosine between the two logits, 0..1.
    hd95_px: largest distance of the borders, in pixels of the network; not asked as `dice` is not.
    flipped_in_all: share of the pixels of all images that may flip, beyond `free_pixels`.
        None: not asked.
    """

    relative_error: float
    flipped_share: float
    dice: float
    free_pixels: int
    mean_error: float | None = None
    cosine: float | None = None
    hd95_px: float | None = None
    flipped_in_all: float | None = None


# Measured with trained networks on real images (docs/parity.md). Right FP32 backends err by at most 4e-4
# standard deviations (1e-5 in the mean, cosine 1 - 1e-9) and flip at most 1 pixel in 100,000. Whole networks
# in FP16 err by 0.2 (0.01 in the mean, cosine 1 - 6e-5), flip 2 in 10,000 pixels, and move borders by 1.
BUDGETS = {
    "fp32": Budget(
        relative_error=1e-3, flipped_share=2e-5, dice=0.999, free_pixels=2,
        mean_error=2.5e-4, cosine=0.999999, hd95_px=2.0, flipped_in_all=1e-5,
    ),
    "fp16": Budget(
        relative_error=0.25, flipped_share=1e-3, dice=0.99, free_pixels=8,
        mean_error=0.03, cosine=0.9995, hd95_px=3.0, flipped_in_all=5e-4,
    ),
}  # fmt: skip
BUDGETS["bf16"] = BUDGETS["fp16"]  # rounds 8 times as coarsely, and may decide no worse


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
    deviations. cosine: between the two logits. decisions: at the network's size. at_image: at the image's own
    size, None where no mask was made there."""

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
            f"{self.artefact}: {image.image}: {line}" for image in self.images for line in image.breaches
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
        """Plain values for JSON."""
        return {"passed": self.passed, **dataclasses.asdict(self)}


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


def _cosine(reference: FloatArray, candidate: FloatArray) -> float | None:
    """Cosine of the angle between two sets of finite logits; None where one is zero throughout."""
    a, b = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
    length = math.sqrt(float(a @ a) * float(b @ b))
    return min(1.0, float(a @ b) / length) if length else None


def differing_bits(expected: npt.NDArray[Any], got: npt.NDArray[Any]) -> int:
    """Elements of two tensors whose bits differ; all of them where shape or dtype does."""
    if expected.shape != got.shape or expected.dtype != got.dtype:
        return expected.size
    unsigned = f"u{expected.dtype.itemsize}"
    return int(np.count_nonzero(expected.view(unsigned) != got.view(unsigned)))
