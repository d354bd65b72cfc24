"""The header of a compressed DICOM frame against the header of its file.

A JPEG or JPEG 2000 frame carries a header of its own. Where the two contradict each other the decoders
follow the frame's: a frame may be larger than the file says (and fill the memory), or its samples signed
where the file says unsigned, which gives a picture of wrong values and no complaint.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from tumorseg_runtime.core.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

_JPEG, _J2K, _JP2 = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  "
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # start of frame, JPEG-LS's included
_LOSSLESS, _SCAN = 0xC3, 0xDA
_HALVING = (5, 6, 7)  # predictors with a division by two


def check_stream(stream: bytes, dataset: Dataset) -> None:
    """Raise InputError where a frame contradicts its file; frames of another kind (RLE) pass."""
    if stream.startswith(_JPEG):
        height, width, predictor = _jpeg(stream)
        if predictor in _HALVING and dataset.PixelRepresentation == 1:
            raise InputError(
                f"is lossless JPEG of signed values with predictor {predictor}, which encoders compute in "
                "two ways that cannot be told apart: convert it to another transfer syntax where it was made"
            )
    elif stream.startswith((_J2K, _JP2)):
        at = stream.find(_J2K)
        right, bottom, left, top = struct.unpack_from(">4I", stream, at + 8)
        height, width = bottom - top, right - left
        signed = bool(stream[at + 42] & 0x80)
        if signed and dataset.PixelRepresentation == 0:
            raise InputError(
                "is JPEG 2000 of signed values, its header says unsigned (PixelRepresentation 0), expected "
                "both to agree: export it again"
            )
    else:
        return
    if (height, width) != (dataset.Rows, dataset.Columns):
        raise InputError(
            f"has a compressed frame of {width}x{height} pixels, its header says "
            f"{dataset.Columns}x{dataset.Rows}: export it again"
        )


def _jpeg(stream: bytes) -> tuple[int, int, int | None]:
    """Height and width in pixels, and the predictor of a lossless frame; None for other frames."""
    position, size, marker, lossless = 2, None, 0, False
    while marker != _SCAN:
        while stream[position] == 0xFF and stream[position + 1] == 0xFF:  # fill bytes
            position += 1
        mark, marker, length = struct.unpack_from(">BBH", stream, position)
        if mark != 0xFF:
            raise InputError("has a damaged JPEG frame (a marker is missing): copy or export it again")
        if marker in _FRAMES:
            size = struct.unpack_from(">HH", stream, position + 5)
            lossless = marker == _LOSSLESS
        if marker == _SCAN:
            components = stream[position + 4]
            predictor = stream[position + 5 + 2 * components]
        position += 2 + length
    if size is None:
        raise InputError("has a JPEG frame without a header, expected one: copy or export it again")
    return size[0], size[1], predictor if lossless else None
