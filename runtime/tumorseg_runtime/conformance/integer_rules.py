"""What reading makes of values beyond 8 bits, in integers: the rules of `images`, written a second time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.integer[Any]]


def rounded(top: IntArray, bottom: int) -> UInt8Array:
    """top / bottom, rounded half to even."""
    whole, rest = np.divmod(top, bottom)
    up = (2 * rest > bottom) | ((2 * rest == bottom) & (whole % 2 == 1))
    return np.asarray(whole + up, np.uint8)


def by_extremes(values: IntArray) -> UInt8Array:
    """From the image's own minimum and maximum to 0..255."""
    low, high = int(values.min()), int(values.max())
    table = rounded(np.arange(high - low + 1) * 255, high - low)
    return table[values.astype(np.int64) - low]


def by_window(values: IntArray, centre: int, width: int, *, exact: bool = False) -> UInt8Array:
    """To 0..255 by DICOM's LINEAR, (v - (c - 0.5)) / (w - 1) + 0.5, or LINEAR_EXACT, (v - c) / w + 0.5."""
    shift, span = (0, width) if exact else (1, width - 1)
    top = 2 * (values.astype(np.int64) - centre) + shift + span  # over 2 * span
    return rounded(np.clip(top, 0, 2 * span) * 255, 2 * span)


def by_sigmoid(values: IntArray, centre: int, width: int) -> UInt8Array:
    """DICOM's window SIGMOID, 1 / (1 + exp(-4 (v - c) / w)), to 0..255."""
    low, high = int(values.min()), int(values.max())
    table = [round(255 / (1 + math.exp(-4 * (v - centre) / width))) for v in range(low, high + 1)]
    return np.array(table, np.uint8)[values.astype(np.int64) - low]
