"""References: images with what PyTorch made of them. The golden images of a bundle are such.

A bundle holds per golden image `golden/<name>.png` (the input) and `golden/<name>.npz` with `tensor`
float32 (C, H, W), what preprocessing must make of it, and `logits` float32 (K, H, W), PyTorch's answer.
"""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.bundle.bundle import GOLDEN_FOLDER, Bundle
from tumorseg_runtime.core.errors import BundleError, InputError
from tumorseg_runtime.images.frame import Spacing
from tumorseg_runtime.images.read import read_image

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
    return [_load(bundle.root / FOLDER, name) for name in bundle.golden]


def _load(folder: Path, name: str) -> Golden:
    try:
        with (folder / f"{name}.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            path = folder / f"{name}.png"
            return Golden(name, read_image(path), arrays["tensor"], arrays["logits"], path)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, InputError) as error:
        raise BundleError(
            f"{folder / name}: golden image is damaged ({error}): export the bundle again"
        ) from error
