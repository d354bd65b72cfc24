"""Headers of WebP, JPEG 2000 and AVIF files, which are made of chunks or boxes, and of PNM files.

OpenCV's builds differ in these: some lack AVIF, versions before 4.12 ignore the orientation in a WebP, and
all ignore the one in an AVIF. What would be shown wrongly is refused; a WebP is turned by the reader.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.image_header import (
    ImageHeader,
    exif_orientation,
    several_images,
    to_be_converted,
)

CODESTREAM = b"\xff\x4f\xff\x51"
JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
_SRGB, _GRAY = 16, 17  # enumerated colour spaces of JPEG 2000
_ANIMATED = 0x02  # flag of a WebP
_SAMPLES = {b"P1": 1, b"P2": 1, b"P3": 3, b"P4": 1, b"P5": 1, b"P6": 3}
_BITMAPS, _TEXT = (b"P1", b"P4"), (b"P1", b"P2", b"P3")
_SPACE = rb"(?:\s|#[^\n\r]*[\n\r])+"  # with comments
_TURNS = {b"irot": "turned", b"imir": "mirrored", b"clap": "cut"}
_AVIF_SEQUENCE = b"avis"


def read_webp(data: bytes, name: str) -> ImageHeader:
    """Header of a WebP file; colour, since the format knows no gray."""
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise IndexError(size)
    chunks = dict(_webp_chunks(data[: size + 8]))
    orientation = 1
    if b"VP8X" in chunks:
        body = chunks[b"VP8X"]
        if body[0] & _ANIMATED or b"ANIM" in chunks:
            raise several_images(name, "an animation")
        width, height = (1 + int.from_bytes(body[at : at + 3], "little") for at in (4, 7))
        orientation = exif_orientation(chunks.get(b"EXIF", b""))
    elif b"VP8L" in chunks:
        packed = int.from_bytes(chunks[b"VP8L"][1:5], "little")
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", chunks[b"VP8 "], 6))
    return ImageHeader("webp", width, height, 8, False, data, orientation, "is a WebP")


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 12
    while position + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, position)
        yield kind, data[position + 8 : position + 8 + size]
        position += 8 + size + size % 2


def read_jpeg_2000(data: bytes, name: str) -> ImageHeader:
    """Header of a JPEG 2000 file or bare codestream."""
    start, what = 0, ""
    if data.startswith(JP2):
        boxes = list(_boxes(data, 0, len(data)))
        streams = [begin for kind, begin, _ in boxes if kind == b"jp2c"]
        if len(streams) > 1:
            raise several_images(name, "several codestreams")
        (start,) = streams
        for kind, begin, end in boxes:
            if kind == b"jp2h":
                what = _colour_of(data, begin, end)
    if data[start : start + 4] != CODESTREAM:
        raise KeyError(data[start : start + 4])
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    (count,) = struct.unpack_from(">H", data, start + 40)
    components = [struct.unpack_from(">BBB", data, start + 42 + 3 * at) for at in range(count)]
    bits = (components[0][0] & 0x7F) + 1
    if any(component[0] & 0x80 for component in components):
        what = "with signed values"
    elif len({component[0] for component in components}) > 1 or not 8 <= bits <= 16 or count > 4:
        what = f"of {count} components of {bits} bits"
    elif any(component[1:] != (1, 1) for component in components):
        what = "with subsampled components"
    if what:
        raise to_be_converted(name, f"a JPEG 2000 {what}")
    sides = right - left, bottom - top
    return ImageHeader(
        "jpeg2000", *sides, 8 if bits == 8 else 16, count <= 2, data, None, "is a JPEG 2000 file"
    )


def _colour_of(data: bytes, start: int, end: int) -> str:
    """What in the header of a JP2 file OpenCV would not heed; empty for nothing."""
    for kind, begin, stop in _boxes(data, start, end):
        if kind == b"pclr":
            return "with a palette"
        if kind == b"colr" and data[begin] == 1:
            (space,) = struct.unpack_from(">I", data, begin + 3)
            if space not in (_SRGB, _GRAY):
                return f"of colour space {space}"
        if kind == b"cdef":
            for at in range(begin + 2, stop, 6):
                channel, use, colour = struct.unpack_from(">HHH", data, at)
                if use == 0 and colour not in (0, channel + 1):
                    return "with its channels in another order"
    return ""


def read_avif(data: bytes, name: str) -> ImageHeader:
    """Header of an AVIF file, from the properties of its primary image."""
    boxes = {kind: (begin, end) for kind, begin, end in _boxes(data, 0, len(data))}
    begin, end = boxes[b"ftyp"]
    brands = {data[at : at + 4] for at in range(begin, end, 4) if at != begin + 4}
    if data[begin : begin + 4] == _AVIF_SEQUENCE:
        raise several_images(name, "an animation")
    if b"avif" not in brands:
        brand = data[begin : begin + 4].decode("ascii", "replace")
        raise InputError(f"{name}: is a file of brand '{brand}', expected AVIF: convert it to PNG")
    begin, end = boxes[b"meta"]
    meta = {kind: (first, last) for kind, first, last in _boxes(data, begin + 4, end)}
    version, primary = data[meta[b"pitm"][0]], meta[b"pitm"][0] + 4
    (item,) = struct.unpack_from(">I" if version else ">H", data, primary)
    inside = {kind: (first, last) for kind, first, last in _boxes(data, *meta[b"iprp"])}
    properties = list(_boxes(data, *inside[b"ipco"]))
    of_primary = {
        kind: first
        for kind, first, _ in (properties[at - 1] for at in _associated(data, inside[b"ipma"][0], item) if at)
    }
    for kind, what in _TURNS.items():
        if kind in of_primary and (kind != b"irot" or data[of_primary[kind]] & 3):
            raise to_be_converted(name, f"an AVIF that is to be {what} when shown")
    width, height = struct.unpack_from(">II", data, of_primary[b"ispe"] + 4)
    # of a grid only its tiles have the codec's configuration
    config = of_primary.get(b"av1C") or next(first for kind, first, _ in properties if kind == b"av1C")
    depth = data[config + 2]
    bits, gray = 16 if depth & 0x40 else 8, bool(depth & 0x10)
    return ImageHeader("avif", width, height, bits, gray, data, 1, "is an AVIF")


def _associated(data: bytes, start: int, item: int) -> list[int]:
    """Places, from 1, of an item's properties."""
    version, flags = data[start], data[start + 3]
    (count,) = struct.unpack_from(">I", data, start + 4)
    position, form = start + 8, ">IB" if version else ">HB"
    for _ in range(count):
        owner, number = struct.unpack_from(form, data, position)
        position += struct.calcsize(form)
        wide = flags & 1
        places = struct.unpack_from(f">{number}{'H' if wide else 'B'}", data, position)
        position += number * (1 + wide)
        if owner == item:
            return [place & (0x7FFF if wide else 0x7F) for place in places]
    raise KeyError(item)


def _boxes(data: bytes, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first byte and end of the boxes there ; raises IndexError where one is cut off."""
    while position + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, position)
        begin = position + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, begin)
            begin += 8
        stop = end if size == 0 else position + size
        if stop > end or stop < begin:
            raise IndexError(stop)
        yield kind, begin, stop
        position = stop


def read_pnm(data: bytes, name: str) -> ImageHeader:
    """Header of a PBM, PGM or PPM file, whose pixels must be as many as it says."""
    kind = data[:2]
    fields = 2 if kind in _BITMAPS else 3
    match = re.match(rb"P\d" + (_SPACE + rb"(\d{1,9})") * fields + rb"\s", data)
    if match is None:
        raise KeyError(kind)
    width, height, *rest = (int(number) for number in match.groups())
    largest, samples = rest[0] if rest else 255, _SAMPLES[kind]
    if not 255 <= largest <= 65535:
        raise to_be_converted(name, f"a PNM file of values up to {largest}")
    if kind in _TEXT:
        body = re.sub(rb"#[^\n\r]*", b"", data[match.end() :])
        held = len(re.sub(rb"\s", b"", body)) if kind == b"P1" else len(body.split())
        expected = width * height * samples
        data += b"\n"  # without which OpenCV takes the last number for cut off
    else:
        held = len(data) - match.end()
        row = (width + 7) // 8 if kind == b"P4" else width * samples * (1 if largest == 255 else 2)
        expected = row * height
    if held > expected + (0 if kind in _TEXT else 2):  # a line's end may follow
        raise several_images(name, f"{held - expected} values more than its header says")
    if held < expected:
        raise IndexError(expected)
    return ImageHeader("pnm", width, height, 8 if largest == 255 else 16, samples == 1, data)
