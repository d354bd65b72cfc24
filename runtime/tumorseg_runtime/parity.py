"""Parity's core: does an artefact still decide what PyTorch decided? numpy only.

Three floors use it: export refuses what breaks it, a device certifies itself with it, benchmarks study
it. Three things are compared per image, each against a budget that depends on the precision:

- the preprocessed tensor, bit by bit (no budget: one differing bit is a breach);
- the logits: largest absolute error in units of the standard deviation of PyTorch's logits;
- the decisions: pixels whose mask flips, and the Dice between the two masks.

Values that are not finite are always a breach, on either side.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.errors import InputError

FloatArray = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Budget:
    """What is allowed per image.

    relative_error: largest logit error / standard deviation of PyTorch's logits over the set.
    flipped_share: share of the pixels whose decision may differ, 0..1.
    dice: least Dice between the two masks, 0..1; not asked of a mask in which at most
        `free_pixels` flipped, since one pixel moves the Dice of a tiny lesion at will.
    """

    relative_error: float
    flipped_share: float
    dice: float
    free_pixels: int


# Measured with trained networks on real images (docs/performance.md): right FP32 backends err by at most
# 4e-4 standard deviations and flip at most 1 pixel in 100,000; whole networks in FP16 err by 8e-2,
# flip 6 in 10,000 of one image, and move the Dice of a small lesion by half a per cent.
BUDGETS = {
    "fp32": Budget(relative_error=1e-3, flipped_share=2e-5, dice=0.999, free_pixels=2),
    "fp16": Budget(relative_error=0.25, flipped_share=1e-3, dice=0.99, free_pixels=8),
}


@dataclasses.dataclass(frozen=True)
class ImageParity:
    """Figures of one image. `tensor_differs`: elements of the preprocessed tensor whose bits differ,
    None where only logits were compared. Errors are in logits."""

    image: str
    tensor_differs: int | None
    max_error: float
    mean_error: float
    relative_error: float
    pixels: int
    flipped: int
    dice: float
    breaches: tuple[str, ...]


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
        """One line per breach: artefact, image, figure, budget."""
        return tuple(
            f"{self.artefact}: {image.image}: {line}" for image in self.images for line in image.breaches
        )

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


def mask_dice(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """Dice coefficient 2|A∩B| / (|A|+|B|) of two masks (Dice 1945); 1 where both are empty."""
    total = int(first.sum()) + int(second.sum())
    return 1.0 if total == 0 else 2 * int((first & second).sum()) / total


def compare_image(
    image: str,
    reference: FloatArray,
    candidate: FloatArray,
    *,
    logit_threshold: float,
    scale: float,
    budget: Budget,
    tensors: tuple[FloatArray, FloatArray] | None = None,
) -> ImageParity:
    """Compare one image's logits (K, H, W), and its preprocessed tensors (expected, got) where given."""
    breaches = []
    tensor_differs = None
    if tensors is not None:
        tensor_differs = _differing_bits(*tensors)
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
        error = np.full(reference.shape, np.inf)
    else:
        error = np.abs(candidate.astype(np.float64) - reference)
    threshold = np.float32(logit_threshold)
    ours, theirs = reference >= threshold, candidate >= threshold
    flipped = int(np.count_nonzero(ours != theirs))
    dice = mask_dice(ours, theirs)
    max_error = float(error.max())
    if max_error / scale > budget.relative_error:
        breaches.append(
            f"logit error {max_error:.3g} is {max_error / scale:.3g} standard deviations, "
            f"expected at most {budget.relative_error:g}"
        )
    if flipped > max(budget.flipped_share * reference.size, budget.free_pixels):
        breaches.append(
            f"{flipped} of {reference.size} pixels flipped, expected at most {budget.flipped_share:g} of them"
        )
    if dice < budget.dice and flipped > budget.free_pixels:
        breaches.append(f"Dice between the masks is {dice:.4f}, expected at least {budget.dice:g}")
    return ImageParity(
        image, tensor_differs, max_error, float(error.mean()), max_error / scale,
        reference.size, flipped, dice, tuple(breaches),
    )  # fmt: skip


def _differing_bits(expected: FloatArray, got: FloatArray) -> int:
    if expected.shape != got.shape or expected.dtype != got.dtype:
        return expected.size
    return int(np.count_nonzero(expected.view(np.uint32) != got.view(np.uint32)))
