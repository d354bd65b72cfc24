"""References: images with what PyTorch made of them. The golden images of a bundle are such.

A bundle holds per golden image `golden/<name>.png` (the input) and `golden/<name>.npz` with `tensor`
float32 (C, H, W), what preprocessing must make of it, and `logits` float32 (K, H, W), PyTorch's answer.
"""

from __future__ import annotations

import dataclasses
import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.bundle.bundle import GOLDEN_FOLDER, Bundle
from tumorseg_runtime.core.errors import BundleError, InputError
from tumorseg_runtime.images.frame import Spacing
from tumorseg_runtime.images.read import decode_image

FloatArray = npt.NDArray[np.float32]
FOLDER = GOLDEN_FOLDER


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """One image with PyTorch's answer.

    pixels: uint8 (H, W) or (H, W, 3) RGB. tensor: float32 (C, h, w), None where its bits are not known.
    logits: float32 (K, h, w). path: a file that holds the pixels, None where there is none.
    spacings: what that file says about the distance between its pixels. frame, frames: place and number of
    the image among those of the file.
    """

    name: str
    pixels: npt.NDArray[np.uint8]
    tensor: FloatArray | None
    logits: FloatArray
    path: Path | None = None
    spacings: tuple[Spacing, ...] = ()
    frame: int = 0
    frames: int = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Golden(Reference):
    """A reference whose tensor's bits are known."""

    tensor: FloatArray


def load_golden(bundle: Bundle) -> list[Golden]:
    """All golden images of a bundle; raises BundleError where there is none or one is damaged."""
    if not bundle.golden:
        raise BundleError(f"{bundle.root}: holds no golden images, expected some: export it again")
    return [_load(bundle, name) for name in bundle.golden]


def _load(bundle: Bundle, name: str) -> Golden:
    inside, contract = f"{FOLDER}/{name}", bundle.contract
    size = (contract.height, contract.width)
    try:
        path = bundle.root / f"{inside}.png"
        pixels = decode_image(bundle.read(f"{inside}.png"), str(path))
        with zipfile.ZipFile(io.BytesIO(bundle.read(f"{inside}.npz"))) as arrays:
            tensor = _array(arrays, "tensor", (contract.channels, *size))
            logits = _array(arrays, "logits", (len(contract.classes), *size))
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error, InputError) as error:
        raise BundleError(
            f"{bundle.root / inside}: golden image is damaged ({error}): export the bundle again"
        ) from error
    return Golden(name, pixels, tensor, logits, path)


def _array(arrays: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> FloatArray:
    """One float32 array of an .npz; what its header promises is looked at before memory is taken for it."""
    with arrays.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        got, by_columns, dtype = read(file)
        if (got, by_columns, dtype) != (shape, False, np.dtype(np.float32)):
            raise ValueError(f"{name} is {dtype} {got}, expected float32 {shape}")
        expected = 4 * int(np.prod(shape))
        data = file.read(expected)
    if len(data) != expected:
        raise ValueError(f"{name} has {len(data)} bytes, expected {expected}")
    return np.frombuffer(bytearray(data), np.float32).reshape(shape)  # writable: torch warns of other arrays
