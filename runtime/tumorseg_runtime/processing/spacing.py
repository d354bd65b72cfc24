"""From pixels to millimetres: the spacing that a file gives, applied to lesions.

Only a DICOM file says so. The distance may hold in a part of the image alone (an ultrasound image has
regions); a lesion that no such part holds completely stays without millimetres: nothing is guessed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from tumorseg_runtime.images.frame import Spacing
from tumorseg_runtime.processing.postprocess import Lesion


def measure(lesion: Lesion, spacings: Sequence[Spacing]) -> Lesion:
    """The lesion with its millimetres, by the one spacing that holds for all of it; unchanged without one,
    and where two parts with different spacings hold it."""
    fitting = [spacing for spacing in spacings if _holds(spacing.box, lesion.box)]
    if len({(spacing.row_mm, spacing.column_mm) for spacing in fitting}) != 1:
        return lesion
    row_mm, column_mm = fitting[0].row_mm, fitting[0].column_mm
    return dataclasses.replace(
        lesion,
        area_mm2=lesion.area_px * row_mm * column_mm,
        box_mm=(lesion.box[2] * column_mm, lesion.box[3] * row_mm),
        diameter_mm=_diameter(lesion, row_mm, column_mm),
    )


def _holds(part: tuple[int, int, int, int] | None, box: tuple[int, int, int, int]) -> bool:
    if part is None:
        return True
    return (
        part[0] <= box[0]
        and part[1] <= box[1]
        and box[0] + box[2] <= part[0] + part[2]
        and box[1] + box[3] <= part[1] + part[3]
    )


def _diameter(lesion: Lesion, row_mm: float, column_mm: float) -> float:
    """Largest distance in mm between two corners of the lesion's pixels."""
    hull = cv2.convexHull(np.array(lesion.contour, np.int32)).reshape(-1, 2).astype(np.float64)
    corners = np.concatenate([hull + np.array((x, y)) for x in (-0.5, 0.5) for y in (-0.5, 0.5)])
    millimetres = corners * (column_mm, row_mm)  # (n, 2): x, y
    steps = millimetres[:, None] - millimetres[None]
    return float(np.sqrt((steps**2).sum(axis=2).max()))
