"""Edge cases: files of every odd kind, and images that a network seldom sees, through every artefact.

The files are conformance files, of each kind that reaches the network as other values; the images are empty,
saturated, of one step, of fine stripes and of noise. PyTorch is given what the resize rule in numpy makes of
their pixels, so that the runtime's own way to the tensor is judged as well.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.parity.references import ReferenceSet
from tumorseg_benchmarks.variants.inputs import EncodedImage
from tumorseg_runtime.conformance.file_formats import encode_png
from tumorseg_runtime.conformance.files import vectors
from tumorseg_runtime.conformance.scenes import noise
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.session import Session, checked_infer
from tumorseg_runtime.parity.budget import BUDGETS, Budget
from tumorseg_runtime.processing.preprocess import Preprocessor, resize_rule

NAME = "edge cases"
# FP32 has its own budget here. What rounding to halves does far from any real image is no fault, as long as
# the answer is finite and about as large; a right network in FP16 erred by 0.62 on a step (docs/parity.md).
_HALVES = Budget(relative_error=2.0, free_pixels=8)
# INT8's ranges end where the calibration images do: beyond, its logits have no bound, and are no verdict.
_BUDGETS = {
    **BUDGETS,
    "fp16": _HALVES,
    "bf16": _HALVES,
    "int8": Budget(relative_error=math.inf, free_pixels=0),
}
_UNVERIFIED = {
    "int8": "these images are unlike those that INT8's ranges were taken from; tensors and finite logits "
    "were asked, not the masks"
}
# Every file costs an answer of PyTorch and of every variant: one of each kind that differs to the network.
_FILES = (
    "gray.png", "rgb.png", "wide-rgb.png", "tall-gray.png", "1x1-gray.png", "1x1-rgb.png", "1x300-gray.png",
    "large-gray.png", "network-size-rgb.png", "16-bit-gray.png", "16-bit-rgb.png", "rgba.png",
    "near-gray-rgb.png", "palette.png", "1-bit.png", "baseline-rgb.jpg", "exif-6.jpg", "24-bit.bmp",
    "16-bit-big-endian.tif", "tiled-rgb.tif",
)  # fmt: skip
UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]


@functools.cache
def edge_cases() -> tuple[tuple[EncodedImage, UInt8Array], ...]:
    """Files with the pixels that they hold, uint8 (H, W) or (H, W, 3)."""
    columns = np.arange(300)[None] + np.zeros((200, 1), np.int64)
    drawn = {
        "black.png": np.zeros((120, 90), np.uint8),
        "white.png": np.full((120, 90), 255, np.uint8),
        "step.png": np.where(columns < 150, 0, 255).astype(np.uint8),
        "ramp.png": (columns * 255 // 299).astype(np.uint8),
        "stripes.png": (columns % 2 * 255).astype(np.uint8),
        "noise.png": noise(200, 300, start=17),
    }
    known = {vector.name: vector for vector in vectors()}
    cases = [(EncodedImage(name, known[name].data), known[name].pixels) for name in _FILES]
    return (*cases, *((EncodedImage(name, encode_png(pixels)), pixels) for name, pixels in drawn.items()))


def edge_reference(session: Session, contract: Contract, scale: float) -> ReferenceSet:
    """The edge cases that the contract takes, with PyTorch's answers.

    scale: standard deviation of PyTorch's logits on real images; these here are no measure.
    """
    preprocess = Preprocessor(contract)
    cases = [case for case in edge_cases() if case[1].ndim == 2 or contract.channels == 3]

    def tensor(index: int) -> FloatArray:
        return preprocess.normalise(resize_rule(cases[index][1], contract.height, contract.width))

    logits = tuple(checked_infer(session, tensor(index)[None], contract)[0] for index in range(len(cases)))
    return ReferenceSet(
        NAME,
        tuple(image for image, _ in cases),
        logits,
        tensor,
        scale=scale,
        budgets=_BUDGETS,
        unverified=_UNVERIFIED,
    )
