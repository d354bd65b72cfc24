"""What PyTorch's own masks cover of the images that an export sees: a network whose masks cannot be right.

Parity proves that artefacts decide as PyTorch does, whatever that is. Wrong weights, a wrong normalisation or
the wrong background channel show here, as far as anything shows without a truth, and people look at the rest:
`contact_sheet` draws the golden images with their masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.parity.reference import Golden
from tumorseg_runtime.processing.overlay import draw_overlay
from tumorseg_runtime.processing.postprocess import masks_from_logits

MOST = 0.4  # mean share of the pixels; tumours cover a few per cent, and an outlier is not a set of images
SHEET = "contact_sheet.png"
TILE, GAP, LETTERS = 320, 8, 24  # pixels: longer side of a picture, between pictures, line of text


def shares_of(golden: Sequence[Golden], contract: Contract) -> list[float]:
    """Share of each image that belongs to any class, 0..1."""
    return [float(_masks(item, contract).any(axis=0).mean()) for item in golden]


def implausible(shares: Sequence[float]) -> str | None:
    """Why these shares of images cannot be those of tumours, in words; None where they may be."""
    mean = float(np.mean(shares))
    if max(shares) == 0:
        return f"PyTorch's own masks are empty on all {len(shares)} images"
    if mean > MOST:
        return (
            f"PyTorch's own masks cover {mean:.0%} of the pixels of {len(shares)} images on average, "
            f"expected at most {MOST:.0%}"
        )
    return None


def contact_sheet(golden: Sequence[Golden], contract: Contract) -> npt.NDArray[np.uint8]:
    """uint8 (H, W, 3) RGB: a line for each golden image: its name and share, itself, and with its masks."""
    rows = []
    for item, share in zip(golden, shares_of(golden, contract), strict=True):
        height, width = item.pixels.shape[:2]
        scale = TILE / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        row = np.full((size[1] + LETTERS + GAP, 2 * TILE + 3 * GAP, 3), 255, np.uint8)
        nothing = np.zeros((0, height, width), np.bool_)
        for place, masks in enumerate((nothing, _masks(item, contract))):
            picture = cv2.resize(draw_overlay(item.pixels, masks), size, interpolation=cv2.INTER_AREA)
            left = GAP + place * (TILE + GAP)
            row[LETTERS : LETTERS + size[1], left : left + size[0]] = picture
        text = f"{item.name}: {share:.1%}"
        cv2.putText(row, text, (GAP, LETTERS - GAP), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        rows.append(row)
    return np.concatenate(rows)


def _masks(item: Golden, contract: Contract) -> npt.NDArray[np.bool_]:
    return masks_from_logits(item.logits, contract, *item.pixels.shape[:2])
