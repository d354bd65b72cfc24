"""HD95: how far apart the borders of two masks lie, in pixels.

The border of a mask is made of its pixels that have a 4-neighbour outside of it, or lie at the image's edge.
From each border pixel of one mask the distance to the nearest border pixel of the other is taken; the 95th
percentile of these, linearly interpolated, is one direction, and HD95 is the larger of both directions.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
_PERCENTILE = 95


def hd95(first: BoolArray, second: BoolArray) -> float | None:
    """HD95 of two masks (H, W) in pixels: 0 where both are empty, None where one is."""
    rows, columns = np.nonzero(first | second)
    if not len(rows):
        return 0.0
    if not first.any() or not second.any():
        return None
    window = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    borders = [border(mask[window]) for mask in (first, second)]
    return max(_directed(*borders), _directed(*reversed(borders)))


def border(mask: BoolArray) -> BoolArray:
    """The border pixels of a mask (H, W)."""
    inner = cv2.erode(mask.astype(np.uint8), _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(mask & (inner == 0))


def _directed(source: BoolArray, target: BoolArray) -> float:
    to_target = cv2.distanceTransform((~target).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float(np.percentile(to_target[source], _PERCENTILE))
