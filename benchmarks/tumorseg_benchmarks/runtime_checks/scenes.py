"""Images of any size with a scanner's grain, made from the golden images of a bundle."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.parity.reference import load_golden

UInt8Array = npt.NDArray[np.uint8]
GRAIN = 2.0  # standard deviation of the noise, in gray levels: without it a PNG decodes too fast


def scene(bundle: Bundle, height: int, width: int, *, colour: bool, seed: int) -> UInt8Array:
    """uint8 (height, width) or (height, width, 3) RGB: a golden image, resized, with noise of its own.

    Each channel of a colour image has other noise, so that it is no gray image in disguise.
    """
    golden = load_golden(bundle)
    pixels = golden[seed % len(golden)].pixels
    gray = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    resized = cv2.resize(gray, (width, height), interpolation=cv2.INTER_CUBIC)
    shape = (height, width, 3) if colour else (height, width)
    noise = np.random.default_rng(seed).normal(0, GRAIN, shape)
    clean = resized[:, :, None] if colour else resized
    return np.asarray(np.clip(np.rint(clean + noise), 0, 255), np.uint8)


def encoded(pixels: UInt8Array) -> bytes:
    """The image as a PNG file in memory."""
    stored = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, ::-1])  # BGR
    _, data = cv2.imencode(".png", stored)
    return data.tobytes()
