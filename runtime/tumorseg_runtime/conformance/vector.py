"""One conformance file, with what reading it must give."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.images.frame import Spacing

UInt8Array = npt.NDArray[np.uint8]

# Gray files go through both, coloured ones through the first alone: the second takes gray. They are the
# contracts of the conformance networks (`tumorseg_runtime.conformance.network`), too.
CONTRACTS = {
    "rgb": Contract(
        height=64,
        width=96,
        mean=(0.5, 0.25, 0.125),
        std=(0.5, 0.25, 1.0),
        classes=("bright", "warm"),
        threshold=0.6,
    ),
    "gray": Contract(height=96, width=32, mean=(0.3,), std=(0.2,), classes=("bright", "dark"), threshold=0.6),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Vector:
    """One file and what reading it must give.

    name: with its suffix. frames: uint8 (H, W) or (H, W, 3) RGB each. spacings: those of each frame.
    """

    name: str
    data: bytes
    frames: tuple[UInt8Array, ...]
    spacings: tuple[Spacing, ...] = ()

    @property
    def pixels(self) -> UInt8Array:
        """The first frame, for most files the only one."""
        return self.frames[0]

    @property
    def dicom(self) -> bool:
        """Whether reading it needs the extra `dicom`."""
        return self.name.endswith(".dcm")

    @property
    def contracts(self) -> dict[str, Contract]:
        """The contracts that take it."""
        return CONTRACTS if self.pixels.ndim == 2 else {"rgb": CONTRACTS["rgb"]}
