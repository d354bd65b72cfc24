"""What an artefact may differ from PyTorch, by precision, and a line for each limit that an image breaks.

docs/parity.md derives the numbers.
"""

from __future__ import annotations

import dataclasses

from tumorseg_runtime.parity.mask_diff import Decisions


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
        relative_error=6e-3, free_pixels=2, mean_error=2.5e-4, cosine=0.999999,
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


def number_breaches(
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


def decision_breaches(found: Decisions, budget: Budget) -> tuple[list[str], list[str]]:
    """What decisions break: what no error of the logits explains, and what is too much of what it does."""
    wrong, amounts = list[str](), list[str]()
    free = budget.free_pixels * found.wide**2
    if found.outside:
        wrong.append(
            f"{found.outside} pixels flipped that lie further from the threshold than the logits err "
            f"({found.band:.3g}), expected 0 {found.where}"
        )
        wrong += [
            f"a lesion of {one.area_px} pixels {one.kind} at column {one.box[0]}, row {one.box[1]}, "
            f"{one.outside} of them beyond the logits' error, expected 0"
            for one in found.events if one.outside
        ][:1]  # fmt: skip
    share = budget.flipped_share
    if share is not None and found.flipped > max(free, share * found.pixels):
        amounts.append(
            f"{found.flipped} of {found.pixels} pixels flipped, expected at most {share:g} of them, "
            f"{found.where}"
        )
    moved = found.flipped - found.event_px
    if moved <= free:
        return wrong, amounts
    allowed = budget.flips_per_border
    if allowed is not None and moved > allowed * found.border * found.wide:
        amounts.append(
            f"{moved} of {found.pixels} pixels flipped, expected at most {allowed * found.wide:.3g} for each "
            f"of {found.border} pixels of the mask's border, {found.where}"
        )
    if budget.hd95_px is not None and found.hd95_px > budget.hd95_px * found.wide:
        amounts.append(
            f"distance of the borders (HD95) is {found.hd95_px:.3g} pixels, "
            f"expected at most {budget.hd95_px * found.wide:.3g}"
        )
    return wrong, amounts
