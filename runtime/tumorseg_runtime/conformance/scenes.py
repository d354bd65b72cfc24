"""Pictures for the conformance files, from integers alone, the same on every machine.

A scene shows a few bright shapes on a dark ground. It is asymmetric, and its shapes touch all four borders,
so that a flip, a transposition, a shift or a swap of channels moves the mask:

    corner  touches top and left           ring    holds an island
    edge    touches the right border       steps   two boxes that touch at a corner only
    foot    touches the bottom             line    one pixel high
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]

PARTS = 32  # of the height and the width, in which shapes are placed
# top, bottom, left, right in parts, and the label; what comes later covers what came before
_SHAPES = (
    (0, 6, 0, 4, 1),  # corner
    (3, 9, 28, 32, 2),  # edge
    (28, 32, 6, 12, 3),  # foot
    (12, 26, 12, 24, 4),  # ring
    (14, 24, 14, 22, 0),
    (17, 21, 16, 20, 5),  # its island
    (3, 6, 10, 13, 6),  # steps
    (6, 8, 13, 15, 7),
)
_LINE = (29, 16, 26, 8)  # top, left, right, label
_GRAYS = np.array([16, 255, 181, 222, 240, 190, 230, 205, 250], np.uint8)  # by label
# By label. They survive the way to YCbCr and back by JFIF's and DICOM's formulas: JPEG keeps them.
COLOURS = np.array(
    [
        (24, 30, 28), (236, 200, 60), (61, 205, 240), (250, 250, 250), (240, 180, 92),
        (179, 60, 20), (199, 240, 60), (90, 180, 240), (239, 240, 100),
    ],
    np.uint8,
)  # fmt: skip
YBR = np.array(
    [
        (28, 128, 125), (195, 52, 157), (166, 170, 53), (250, 128, 128), (188, 74, 165),
        (91, 88, 191), (207, 45, 122), (160, 173, 78), (224, 58, 139),
    ],
    np.uint8,
)  # fmt: skip
_QUIET = 7  # largest value of the noise


def noise(*shape: int, start: int = 0) -> UInt8Array:
    """uint8 values that look like noise, from integers alone."""
    index = np.arange(start, start + int(np.prod(shape)), dtype=np.uint64)
    return ((index * np.uint64(2654435761) >> np.uint64(13)) & np.uint64(255)).astype(np.uint8).reshape(shape)


def labels(height: int, width: int) -> UInt8Array:
    """The shape that each pixel belongs to, 1 to 8; 0 on the ground."""
    found = np.zeros((height, width), np.uint8)
    for top, bottom, left, right, label in _SHAPES:
        rows = slice(top * height // PARTS, bottom * height // PARTS)
        found[rows, left * width // PARTS : right * width // PARTS] = label
    top, left, right, label = _LINE
    found[top * height // PARTS, left * width // PARTS : right * width // PARTS] = label
    return found


def scene(height: int, width: int, start: int = 0) -> UInt8Array:
    """uint8 (H, W): shapes from 174 to 255, ground from 9 to 40, another in each quarter.

    start: of the noise, for another picture of the same shapes.
    """
    found = labels(height, width)
    ground = found == 0
    values = _GRAYS[found] - (noise(height, width, start=start) & _QUIET)
    _add_quarters(values, ground)
    return values


def colour_scene(height: int, width: int, start: int = 0) -> UInt8Array:
    """uint8 (H, W, 3) RGB: shapes of strong colours on a ground from 17 to 54."""
    found = labels(height, width)
    values = COLOURS[found] - (noise(height, width, 3, start=start) & _QUIET)
    _add_quarters(values, found == 0)
    return values


def _add_quarters(values: UInt8Array, ground: npt.NDArray[np.bool_]) -> None:
    """Raise the ground by 8 in the lower half and by 16 in the right one, in place."""
    for axis, more in ((0, 8), (1, 16)):
        half = [slice(None), slice(None)]
        half[axis] = slice(values.shape[axis] // 2, None)
        part = values[tuple(half)]
        part[ground[tuple(half)]] += np.uint8(more)
