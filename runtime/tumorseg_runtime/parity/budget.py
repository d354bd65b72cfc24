"""What an artefact may differ from PyTorch, by precision. docs/parity.md derives the numbers."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Budget:
    """What is allowed per image.

    relative_error: largest logit error / standard deviation of PyTorch's logits over the set.
    free_pixels: pixels of the network that may flip in any image, whatever its masks are.
    mean_error: mean logit error in the same unit. cosine: least cosine between the two logits, 0..1.
    flips_per_border: pixels that may flip for one pixel of the border of PyTorch's mask, which is by how many
        pixels of the network the border may move in the mean. Lesions that appear or vanish are not in it.
    hd95_px: largest distance of the borders, in pixels of the network, without lesions that appear or vanish;
        not asked of an image in which at most `free_pixels` flipped.
    flipped_share: of all pixels, what may flip in any case, lesions that appear or vanish included: a mask
        that is little but border is no mask. Beyond `free_pixels`.
    flips_per_border_in_all: as `flips_per_border`, over all images together and with every flip.
    None: not asked.
    """

    relative_error: float
    free_pixels: int
    mean_error: float | None = None
    cosine: float | None = None
    flips_per_border: float | None = None
    hd95_px: float | None = None
    flipped_share: float | None = None
    flips_per_border_in_all: float | None = None


# Set above the largest figures of right artefacts of trained networks, which
# `python -m tumorseg_benchmarks.mutants.derive_limits` measures (docs/parity.md has them and the reasons).
BUDGETS = {
    "fp32": Budget(
        relative_error=3e-3, free_pixels=2, mean_error=1e-4, cosine=0.999999,
        flips_per_border=0.01, hd95_px=1.0, flips_per_border_in_all=0.005,
    ),
    "fp16": Budget(
        relative_error=0.25, free_pixels=8, mean_error=0.03, cosine=0.9995,
        flips_per_border=0.3, hd95_px=3.0, flipped_share=2e-3, flips_per_border_in_all=0.06,
    ),
}  # fmt: skip
# What INT8 may decide is bounded by the truth (docs/int8.md), and by this in each image. The largest error
# also bounds the band in which a lesion may appear or vanish.
BUDGETS["int8"] = Budget(
    relative_error=1.5, free_pixels=16, mean_error=0.1, cosine=0.99,
    flips_per_border=1.0, hd95_px=5.0, flipped_share=5e-3, flips_per_border_in_all=0.12,
)  # fmt: skip
BUDGETS["bf16"] = BUDGETS["fp16"]  # rounds 8 times as coarsely, and may decide no worse
