"""Preprocessing, the only one of the project: uint8 image of any size -> float32 NCHW tensor.

1. resize to the contract's height x width by the rule of `INTER_LINEAR_EXACT` (below);
2. look every 8-bit value up in a table of float32((float32(v) / 255 - mean) / std), one table per channel;
3. repeat gray to the contract's channels.

The resize rule is integer arithmetic and so the same on every machine: output sample i of n_out lies at
(i + 0.5) * (1 / (n_out / n_in)) - 0.5 of n_in source samples (float64), gets the 8-bit weight
rint(256 * fraction), ties to even, and zero weight beyond the borders; rows and columns are blended as
(sum of weight_y * weight_x * value + 2**15) >> 16. OpenCV is a fast way to the same bits; a build of
OpenCV that differs on the golden vector is not used: the rule in numpy runs instead, and
`resize_engine()` says so.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.read import check_image

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]


def resize(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """Resize uint8 (H, W) or (H, W, 3) to (height, width[, 3]) by the exact rule."""
    if image.shape[:2] == (height, width):
        return image
    if resize_engine() == "opencv":
        return resize_opencv(image, height, width)
    return resize_rule(image, height, width)


def resize_opencv(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """The rule as OpenCV computes it; same arguments as `resize`."""
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)  # type: ignore[return-value]


def resize_rule(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """The rule itself, in numpy; same arguments as `resize`. About twenty times slower than OpenCV."""
    if image.ndim == 3:
        planes = [resize_rule(image[:, :, channel], height, width) for channel in range(image.shape[2])]
        return np.stack(planes, axis=2)
    y0, y1, wy = taps(image.shape[0], height)
    x0, x1, wx = taps(image.shape[1], width)
    upper, lower = (
        image[y, x0].astype(np.uint32) * (np.uint32(256) - wx) + image[y, x1].astype(np.uint32) * wx
        for y in (y0[:, None], y1[:, None])
    )  # (height, width) each, at most 255 * 2**8
    weight = wy[:, None]
    blended: npt.NDArray[np.uint32] = (
        upper * (np.uint32(256) - weight) + lower * weight
    )  # at most 255 * 2**16
    return np.asarray((blended + (1 << 15)) >> 16, np.uint8)


def taps(n_in: int, n_out: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.uint32]]:
    """Indices of the two source samples of each output sample, and the second one's weight in 1/256."""
    position = (np.arange(n_out) + 0.5) * (1 / (np.float64(n_out) / n_in)) - 0.5
    first = np.floor(position).astype(np.intp)
    weight = np.rint((position - first) * 256).astype(np.uint32)
    weight[(first < 0) | (first >= n_in - 1)] = 0
    return np.clip(first, 0, n_in - 1), np.clip(first + 1, 0, n_in - 1), weight


@functools.cache
def resize_engine() -> str:
    """'opencv' where this machine's OpenCV gives the rule's bits on the golden vectors, else 'numpy'."""
    for image in golden_images():
        for height, width in ((64, 96), (37, 23), (160, 131)):
            if not np.array_equal(resize_opencv(image, height, width), resize_rule(image, height, width)):
                return "numpy"
    return "opencv"


def golden_images() -> list[UInt8Array]:
    """Noise-like images, gray and RGB, whose values come from integers alone."""
    index = np.arange(97 * 61 * 3, dtype=np.uint64)
    noise = ((index * np.uint64(2654435761) >> np.uint64(13)) & np.uint64(255)).astype(np.uint8)
    return [noise.reshape(97, 61, 3), noise[: 97 * 61].reshape(97, 61), noise[:5].reshape(1, 5)]


class Preprocessor:
    """Turns images into the tensors that a contract asks for. Holds one table, no other state."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        values = np.arange(256, dtype=np.float32)[None] / np.float32(255)
        mean = np.asarray(contract.mean, np.float32)[:, None]
        std = np.asarray(contract.std, np.float32)[:, None]
        self.table: FloatArray = (values - mean) / std  # (C, 256)

    def __call__(self, image: UInt8Array, name: str = "image") -> FloatArray:
        """uint8 (H, W) gray or (H, W, 3) RGB of any size -> float32 (C, height, width).

        Raises InputError for another shape or dtype, and for colour where the contract has one channel.
        """
        image = check_image(image, name)
        resized = resize(image, self.contract.height, self.contract.width)
        return self.normalise(resized, name)

    def normalise(self, resized: UInt8Array, name: str = "image") -> FloatArray:
        """uint8 (height, width[, 3]) at the contract's size -> float32 (C, height, width)."""
        channels = self.contract.channels
        require_channels(resized, channels, name)
        tensor = np.empty((channels, *resized.shape[:2]), np.float32)
        planes = [resized] * channels if resized.ndim == 2 else cv2.split(resized)
        for channel, plane in enumerate(planes):
            target = tensor[channel]
            looked_up = cv2.LUT(plane, self.table[channel], dst=target)
            if looked_up is not target:  # OpenCV may answer with an array of its own
                target[:] = looked_up
        return tensor

    def planes(self, image: UInt8Array, channels: int, name: str = "image") -> UInt8Array:
        """uint8 (H, W) or (H, W, 3) of any size -> resized pixels uint8 (channels, height, width), for a
        network that looks the values up itself. Raises InputError as a call does."""
        image = check_image(image, name)
        require_channels(image, channels, name)
        resized = resize(image, self.contract.height, self.contract.width)
        planes = resized[None] if resized.ndim == 2 else resized.transpose(2, 0, 1)
        return np.ascontiguousarray(np.broadcast_to(planes, (channels, *planes.shape[1:])))


def require_channels(image: UInt8Array, channels: int, name: str) -> None:
    """Raise InputError for colour where the network takes gray; gray is taken by every network."""
    if image.ndim == 3 and channels == 1:
        raise InputError(
            f"{name}: is a colour image, the network takes gray: convert it by a rule you choose, "
            "for example cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)"
        )
