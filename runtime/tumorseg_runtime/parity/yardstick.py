"""A yardstick for flipped pixels: how many flip in PyTorch itself if its input has one grey level of noise?

Nobody sees such noise in an image, and every camera, compression and conversion makes more. An artefact that
flips fewer pixels than that decides as PyTorch does, for all that an image can tell. It limits nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.progress import Tell, silent, told
from tumorseg_runtime.parity.mask_diff import border
from tumorseg_runtime.parity.reference import Reference
from tumorseg_runtime.processing.decision import decide
from tumorseg_runtime.processing.preprocess import Preprocessor

FloatArray = npt.NDArray[np.float32]
LEVELS = 1  # of 255
SEED = 17


@dataclasses.dataclass(frozen=True)
class Yardstick:
    """What noise does to PyTorch's masks at the network's size, over a set of images.

    flipped: pixels of all images that flip. border: pixels of the borders of all masks. worst: flipped pixels
    for one pixel of the border, in the image where that is most.
    """

    images: int
    flipped: int
    border: int
    worst: float

    @property
    def line(self) -> str:
        """For people."""
        return (
            f"one grey level of noise in the input flips {self.flipped} pixels of {self.images} images in "
            f"PyTorch itself, {self.flipped / (self.border or 1):.3g} for each pixel of the masks' borders, "
            f"{self.worst:.3g} in the worst image"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"grey_levels": LEVELS, **dataclasses.asdict(self), "line": self.line}


def measure_yardstick(
    infer: Callable[[FloatArray], FloatArray],
    images: Sequence[Reference],
    contract: Contract,
    tell: Tell = silent,
) -> Yardstick:
    """infer: PyTorch, float32 (1, C, h, w) -> logits float32 (1, K, h, w). images: with its logits without
    noise. Every pixel and channel gets -1, 0 or 1 grey level, equally often, the same on every call.
    tell: the share of the images that is done.
    """
    preprocess, flipped, borders, worst = Preprocessor(contract), 0, 0, 0.0
    for index, item in enumerate(told(images, tell)):
        random = np.random.default_rng((SEED, index))
        noise = random.integers(-LEVELS, LEVELS + 1, item.pixels.shape)
        pixels = np.clip(item.pixels + noise, 0, 255).astype(np.uint8)
        noisy = decide(infer(preprocess(pixels, item.name)[None])[0], contract)
        mask = decide(item.logits, contract)
        flips = int(np.count_nonzero(mask != noisy))
        around = sum(int(np.count_nonzero(border(one))) for one in mask)
        flipped, borders, worst = flipped + flips, borders + around, max(worst, flips / (around or 1))
    return Yardstick(len(images), flipped, borders, worst)
