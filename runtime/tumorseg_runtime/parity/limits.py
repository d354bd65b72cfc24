"""A budget's limits, asked of the figures of one image: a line for each that is broken."""

from __future__ import annotations

from tumorseg_runtime.parity.budget import Budget
from tumorseg_runtime.parity.mask_diff import Decisions


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
