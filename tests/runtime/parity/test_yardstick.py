"""The yardstick: flips of a network that is known, under a grey level of noise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.parity.reference import Reference
from tumorseg_runtime.parity.yardstick import measure_yardstick
from tumorseg_runtime.processing.preprocess import Preprocessor

FloatArray = npt.NDArray[np.float32]
CONTRACT = Contract(height=64, width=64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def red(batch: FloatArray) -> FloatArray:
    """Logits that are positive from the gray level 128 on: float32 (1, 3, 64, 64) -> (1, 1, 64, 64)."""
    return batch[:, :1] * 255 - np.float32(127.5)


def of(pixels: npt.NDArray[np.uint8]) -> Reference:
    tensor = Preprocessor(CONTRACT)(pixels)
    return Reference("one", pixels, tensor, red(tensor[None])[0])


def test_flips_are_those_within_a_grey_level() -> None:
    steep = np.zeros((64, 64), np.uint8)
    steep[20:40, 20:40] = 255
    flat = np.full((64, 64), 127, np.uint8)  # a third of it becomes 128
    flat[20:40, 20:40] = 255
    found = measure_yardstick(red, [of(steep), of(flat)], CONTRACT)
    assert (found.images, found.border) == (2, 2 * 76)
    assert abs(found.flipped - (64 * 64 - 400) / 3) < 100
    assert found.worst == found.flipped / 76
    assert measure_yardstick(red, [of(steep), of(flat)], CONTRACT) == found
    assert measure_yardstick(red, [of(steep)], CONTRACT).line == (
        "one grey level of noise in the input flips 0 pixels of 1 images in PyTorch itself, "
        "0 for each pixel of the masks' borders, 0 in the worst image"
    )
