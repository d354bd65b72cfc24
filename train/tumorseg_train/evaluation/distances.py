"""HD95: how far apart the borders of two masks lie, but for the worst twentieth.

    h(A, B) = 95th percentile over a in ∂A of min over b in ∂B of |a - b|
    HD95    = max(h(P, T), h(T, P))

∂A: pixels of A with a 4-neighbour outside A; beyond the image is outside. The percentile is interpolated
linearly. This is the 95 % Hausdorff distance of Metrics Reloaded (Maier-Hein et al. 2024); the distance
itself is Hausdorff's (Huttenlocher et al. 1993). Libraries that take one percentile over both directions
together give smaller numbers. The runtime measures the same in pixels (`tumorseg_runtime.parity.hausdorff`),
without scipy; here pixels may be oblong, as those of an image that was resized to a square are.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt  # type: ignore[import-untyped]

from tumorseg_runtime.parity.hausdorff import border

BoolArray = npt.NDArray[np.bool_]
PERCENTILE = 95


def hausdorff95(predicted: BoolArray, truth: BoolArray, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """HD95 of bool masks (H, W) in pixels, or in the unit of `spacing` (row to row, column to column).

    NaN where a mask is empty: there is no border to measure from.
    """
    if not (predicted.any() and truth.any()):
        return float("nan")
    left, top, width, height = cv2.boundingRect((predicted | truth).astype(np.uint8))
    window = (slice(top, top + height), slice(left, left + width))  # it holds both borders whole
    first, second = (border(mask[window]) for mask in (predicted, truth))
    return max(_directed(first, second, spacing), _directed(second, first, spacing))


def _directed(origin: BoolArray, target: BoolArray, spacing: tuple[float, float]) -> float:
    """95th percentile of the distances from the pixels of `origin` to the nearest pixel of `target`."""
    distance = distance_transform_edt(~target, sampling=spacing)
    return float(np.percentile(distance[origin], PERCENTILE))
