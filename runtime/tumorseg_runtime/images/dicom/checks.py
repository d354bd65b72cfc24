"""The frames of a compressed DICOM file, each one's own header against the file's.

A JPEG or JPEG 2000 frame carries a header of its own. Where the two contradict each other the decoders
follow the frame's: a frame may be larger than the file says (and fill the memory), or its samples signed
where the file says unsigned, which gives a picture of wrong values and no complaint. A frame without its
end mark was cut off; decoders fill up what is missing. Where frames begin is told by their marks, not by
tables of offsets, which may be wrong.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import TYPE_CHECKING

from tumorseg_runtime.core.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

_JPEG, _J2K, _JP2 = b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  "
_END = b"\xff\xd9"  # of JPEG, JPEG-LS and JPEG 2000 alike; their data cannot hold it
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # start of frame, JPEG-LS's included
_BASELINE, _EXTENDED, _LOSSLESS, _SCAN = 0xC0, 0xC1, 0xC3, 0xDA
_HALVING = (5, 6, 7)  # predictors with a division by two
_ITEM, _DELIMITER = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_AGAIN = "copy or export the file again"


def frames_of(data: bytes, *, whole_fragments: bool) -> list[bytes]:
    """The compressed frames in the value of PixelData: a table of offsets, then fragments.

    whole_fragments: each is a frame (run-length coding, which has no mark). Raises InputError.
    """
    frames: list[list[bytes]] = []
    position, first = 0, True
    while position < len(data):
        try:
            *tag, length = struct.unpack_from("<HHI", data, position)
        except struct.error:
            raise InputError(f"ends inside of its compressed frames: {_AGAIN}") from None
        if tuple(tag) == _DELIMITER:
            break
        fragment = data[position + 8 : position + 8 + length]
        if tuple(tag) != _ITEM or len(fragment) != length:
            raise InputError(f"has a damaged or cut off compressed frame: {_AGAIN}")
        position += 8 + length
        if first:
            first = False  # the table of offsets
        elif whole_fragments or not frames or fragment.startswith((_JPEG, _J2K, _JP2)):
            frames.append([fragment])
        else:
            frames[-1].append(fragment)
    return [b"".join(frame) for frame in frames]


@dataclasses.dataclass(frozen=True)
class _Header:
    """What a frame says of itself. data: where its scan's parameters, or its pixels, begin.

    sequential: JPEG of one scan that holds all coefficients.
    """

    height: int
    width: int
    bits: int
    components: int
    signed: bool
    data: int
    sequential: bool = False


def check_stream(stream: bytes, dataset: Dataset) -> bytes:
    """The frame as it is to be decoded; raises InputError where it contradicts its file, or is cut off.

    Frames of another kind (run-length coding) pass. A sequential JPEG frame of one component whose scan says
    coefficients 0..0 holds all the same 0..63; several writers of 12-bit frames leave that out, and it is
    put in.
    """
    if stream.startswith(_JPEG):
        header = _jpeg(stream, dataset)
    elif stream.startswith((_J2K, _JP2)):
        header = _jpeg_2000(stream)
    else:
        return stream
    if header.signed and dataset.PixelRepresentation == 0:
        raise InputError(
            "is JPEG 2000 of signed values, its header says unsigned (PixelRepresentation 0), expected "
            "both to agree: export it again"
        )
    if (header.height, header.width) != (dataset.Rows, dataset.Columns):
        raise InputError(
            f"has a compressed frame of {header.width}x{header.height} pixels, its header says "
            f"{dataset.Columns}x{dataset.Rows}: export it again"
        )
    if header.components != dataset.SamplesPerPixel or header.bits > dataset.BitsAllocated:
        raise InputError(
            f"has a compressed frame of {header.components} samples of {header.bits} bits, its header says "
            f"{dataset.SamplesPerPixel} of at most {dataset.BitsAllocated}: export it again"
        )
    if stream.rfind(_END) < header.data:
        raise InputError(f"has a compressed frame without an end mark, expected a whole one: {_AGAIN}")
    at = header.data
    if header.sequential and header.components == 1 and stream[at : at + 2] == b"\0\0":
        return stream[:at] + b"\0\x3f" + stream[at + 2 :]
    return stream


def _jpeg_2000(stream: bytes) -> _Header:
    at = stream.find(_J2K)
    right, bottom, left, top = struct.unpack_from(">4I", stream, at + 8)
    (components,) = struct.unpack_from(">H", stream, at + 40)
    form = stream[at + 42]  # sign and bits of the first component
    return _Header(bottom - top, right - left, (form & 0x7F) + 1, components, bool(form & 0x80), at)


def _jpeg(stream: bytes, dataset: Dataset) -> _Header:
    position, marker, found, kind = 2, 0, None, 0
    while marker != _SCAN:
        while stream[position] == 0xFF and stream[position + 1] == 0xFF:  # fill bytes
            position += 1
        mark, marker, length = struct.unpack_from(">BBH", stream, position)
        if mark != 0xFF:
            raise InputError(f"has a damaged JPEG frame (a marker is missing): {_AGAIN}")
        if marker in _FRAMES:
            kind, found = marker, struct.unpack_from(">BHHB", stream, position + 4)
        scan = position + 5 + 2 * stream[position + 4]
        position += 2 + length
    if found is None:
        raise InputError(f"has a JPEG frame without a header, expected one: {_AGAIN}")
    bits, height, width, components = found
    if dataset.PixelRepresentation == 1 and kind == _LOSSLESS and stream[scan] in _HALVING:
        raise InputError(
            f"is lossless JPEG of signed values with predictor {stream[scan]}, which encoders compute in "
            "two ways that cannot be told apart: convert it to another transfer syntax where it was made"
        )
    if dataset.PixelRepresentation == 1 and bits < dataset.BitsStored:
        raise InputError(
            f"has a JPEG frame of {bits} bits, its header says signed values of {dataset.BitsStored}, so "
            "that their sign is unclear: export it again"
        )
    return _Header(height, width, bits, components, False, scan, kind in (_BASELINE, _EXTENDED))
