"""One image with its name, pixels and the distances between them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True)
class Spacing:
    """Distance between the centres of neighbouring pixels.

    row_mm: from one row to the next, downwards. column_mm: from one column to the next, to the right.
    source: the DICOM attribute, or the affine of a NIfTI file, that says it. 'ImagerPixelSpacing' is
        measured at the detector: the anatomy is smaller by the unknown magnification.
    box: left, top, width, height in pixels of the part in which it holds; None: everywhere.
    """

    row_mm: float
    column_mm: float
    source: str
    box: tuple[int, int, int, int] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """One image to be judged.

    name: the path, for one of several frames with its number: 'clip.dcm[3]'.
    pixels: uint8 (H, W) gray or (H, W, 3) RGB, 0..255.
    spacings: distances between its pixels in mm, where the file says them; more than one where it does so
        for parts of the image.
    index, count: place of this frame among those of its file.
    warnings: what the file says and could not be used, a line each; the pixels are right without it.
    sop_instance: the SOP Instance UID of a DICOM file, in which `index` + 1 is the frame's number; None of
        other files.
    """

    name: str
    pixels: npt.NDArray[np.uint8] = dataclasses.field(repr=False)
    spacings: tuple[Spacing, ...] = ()
    index: int = 0
    count: int = 1
    warnings: tuple[str, ...] = ()
    sop_instance: str | None = None


@dataclasses.dataclass(frozen=True)
class WindowedFile:
    """A DICOM file to be read with the window of its series (`tumorseg_runtime.images.dicom.series`).

    span: the values, in the modality's unit, that become 0 and 255 in place of each frame's own minimum and
        maximum, where those are its window.
    """

    path: Path
    span: tuple[float, float]

    def __fspath__(self) -> str:
        return str(self.path)

    __str__ = __fspath__
