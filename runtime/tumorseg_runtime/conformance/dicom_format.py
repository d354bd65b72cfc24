"""Writer of DICOM files, by hand from the standard (PS3.5), to know what a file holds."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
Element = tuple[int, str, Sequence[Any]]  # tag, value representation, values; those of SQ are its items

_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "FD": "d"}
_LONG = ("OB", "OW", "SQ")  # whose length has four bytes
_RUN = 128  # most bytes of one literal run of RLE


def encode_dicom(
    stored: npt.NDArray[Any],
    photometric: str = "MONOCHROME2",
    more: Iterable[Element] = (),
    *,
    bits: int | None = None,
    planar: bool = False,
    frames: bool = False,
    syntax: str = EXPLICIT,
) -> bytes:
    """DICOM file of integers (H, W) or (H, W, 3), behind an axis of frames if there are several.

    photometric: PhotometricInterpretation; YBR_FULL_422 takes (H, W, 3) and keeps the chroma of the first of
    two neighbours. more: further elements. bits: BitsStored, None for all. planar: colour by plane.
    """
    images = stored if frames else stored[None]
    colour = images.ndim == 4
    height, width = images.shape[1:3]
    allocated = stored.dtype.itemsize * 8
    bits = bits or allocated
    body = images.astype(stored.dtype.newbyteorder("<"))
    if photometric == "YBR_FULL_422":
        body = np.stack([body[:, :, ::2, 0], body[:, :, 1::2, 0], body[:, :, ::2, 1], body[:, :, ::2, 2]], -1)
    elif planar:
        body = body.transpose(0, 3, 1, 2)
    elements: list[Element] = [
        (0x00280002, "US", [3 if colour else 1]),
        (0x00280004, "CS", [photometric]),
        (0x00280010, "US", [height]),
        (0x00280011, "US", [width]),
        (0x00280100, "US", [allocated]),
        (0x00280101, "US", [bits]),
        (0x00280102, "US", [bits - 1]),
        (0x00280103, "US", [int(stored.dtype.kind == "i")]),
        *more,
    ]
    if colour:
        elements.append((0x00280006, "US", [int(planar)]))
    if frames:
        elements.append((0x00280008, "IS", [len(images)]))
    explicit = syntax != IMPLICIT
    content = _elements(elements, explicit)
    if syntax == RLE:
        content += _encapsulated([_run_length(image) for image in body])
    else:
        content += _element(
            0x7FE00010, "OB" if allocated == 8 and explicit else "OW", [body.tobytes()], explicit
        )
    if syntax == DEFLATED:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        content = packer.compress(content) + packer.flush()
    meta = _element(0x00020010, "UI", [syntax])
    return bytes(128) + b"DICM" + _element(0x00020000, "UL", [len(meta)]) + meta + content


def _elements(elements: Iterable[Element], explicit: bool = True) -> bytes:
    """Elements in the order of their tags, which are all below the one of the pixels."""
    return b"".join(_element(*element, explicit) for element in sorted(elements, key=lambda one: one[0]))


def _element(tag: int, kind: str, values: Sequence[Any], explicit: bool = True) -> bytes:
    if kind == "SQ":
        items = [_elements(item, explicit) for item in values]
        value = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    elif kind in _NUMBERS:
        value = struct.pack(f"<{len(values)}{_NUMBERS[kind]}", *values)
    elif kind in _LONG:
        value = b"".join(values)
        value += bytes(len(value) % 2)
    else:
        value = "\\".join(map(str, values)).encode()
        value += (b"\0" if kind == "UI" else b" ") * (len(value) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if not explicit:
        return head + struct.pack("<I", len(value)) + value
    return head + kind.encode() + struct.pack("<2xI" if kind in _LONG else "<H", len(value)) + value


def _encapsulated(fragments: Iterable[bytes]) -> bytes:
    """Pixel data of one fragment per frame, behind an empty table of offsets."""
    items = [struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in (b"", *fragments)]
    head = struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF)
    return head + b"".join(items) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def _run_length(image: npt.NDArray[Any]) -> bytes:
    """A frame (H, W) or (H, W, 3) as RLE of literal runs: a segment per channel and byte, high first."""
    planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    segments = []
    for plane in planes:
        split = np.ascontiguousarray(plane).view(np.uint8).reshape(*plane.shape, plane.dtype.itemsize)
        for place in reversed(range(plane.dtype.itemsize)):
            rows = (row.tobytes() for row in np.ascontiguousarray(split[..., place]))
            segment = b"".join(
                bytes([len(run) - 1]) + run
                for row in rows
                for run in (row[start : start + _RUN] for start in range(0, len(row), _RUN))
            )
            segments.append(segment + bytes(len(segment) % 2))
    starts = [64 + sum(map(len, segments[:place])) for place in range(len(segments))]
    return struct.pack("<16I", len(segments), *starts, *[0] * (15 - len(starts))) + b"".join(segments)
