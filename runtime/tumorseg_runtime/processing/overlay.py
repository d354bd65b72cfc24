"""Pictures for people: the image with the mask's area tinted and its borders drawn, those of holes too."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

COLOURS = ((255, 96, 0), (0, 160, 255), (0, 200, 80), (220, 60, 220))  # RGB, one per class, repeated
TINT = 0.35


def draw_overlay(image: npt.NDArray[np.uint8], masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """uint8 (H, W) or (H, W, 3) RGB with bool masks (K, H, W) -> uint8 (H, W, 3) RGB."""
    picture = np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image.copy(order="C")
    line = max(1, round(min(image.shape[:2]) / 300))
    for index, mask in enumerate(masks):
        colour = COLOURS[index % len(COLOURS)]
        tinted = picture[mask].astype(np.float32) * (1 - TINT) + np.asarray(colour, np.float32) * TINT
        picture[mask] = np.rint(tinted).astype(np.uint8)
        borders, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, borders, -1, colour, line)
    return picture
