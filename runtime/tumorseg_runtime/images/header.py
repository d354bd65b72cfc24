"""The header of an image file, read before anything is decoded.

It tells three things: how many pixels decoding would make (a few kilobytes can hold gigabytes), whether
the file is gray, and whether OpenCV would decode it to other values than the file holds. Under OpenCV 4.9
and 5.0 these come back without a complaint: 16-bit TIFFs with separate colour planes (scrambled) or with
gray and alpha (only the high byte), 16-bit TIFFs in which 0 is white (not inverted), 8-bit TIFFs with a
separate alpha channel (multiplied in), files with several images (all but the first dropped: TIFF
pages, animations, MPO, JPEGs behind one another), and JPEGs that end too early (filled up with gray).
What is known of the other kinds stands in `boxed_headers`.
"""

from __future__ import annotations

import re
import struct

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.boxed_headers import (
    CODESTREAM,
    JP2,
    read_avif,
    read_jpeg_2000,
    read_pnm,
    read_webp,
)
from tumorseg_runtime.images.image_header import ImageHeader, several_images
from tumorseg_runtime.images.tiff_header import TIFF_ORDERS, read_tiff

MAX_PIXELS = 100_000_000  # 100 megapixels; OpenCV itself would go on to 2**30

_PNG, _JPEG, _BMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"
_PNM = tuple(b"P%d" % kind + space for kind in range(1, 7) for space in (b"\n", b"\r", b" ", b"\t"))
KINDS = "PNG, JPEG, BMP, TIFF, WebP, JPEG 2000, AVIF or PNM"
_NEXT_JPEG = re.compile(rb"\xff\xd9\0*\xff\xd8\xff")
_MPF = b"MPF\0"  # of a JPEG with further images (cameras' previews, stereo)


def read_header(data: bytes, name: str) -> ImageHeader:
    """Header of an image file of one of KINDS, told apart by content and not by the file's name.

    Raises InputError for another kind, for more than MAX_PIXELS, and for what OpenCV would get wrong.
    """
    try:
        if data.startswith(_PNG):
            header = _png(data, name)
        elif data.startswith(_JPEG):
            header = _jpeg(data, name)
        elif data.startswith(_BMP):
            header = _bmp(data)
        elif data[:4] in TIFF_ORDERS:
            header = read_tiff(data, name)
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            header = read_webp(data, name)
        elif data.startswith((JP2, CODESTREAM)):
            header = read_jpeg_2000(data, name)
        elif data[4:8] == b"ftyp":
            header = read_avif(data, name)
        elif data.startswith(_PNM):
            header = read_pnm(data, name)
        else:
            raise InputError(
                f"{name}: starts with {data[:4].hex(' ')}, expected a {KINDS} file: convert it to PNG"
            )
    except (struct.error, IndexError, KeyError, ValueError, StopIteration) as error:
        raise InputError(
            f"{name}: its header is damaged or cut off, expected a whole image: copy or export the file again"
        ) from error
    if header.width < 1 or header.height < 1:
        raise InputError(
            f"{name}: its header says {header.width}x{header.height} pixels, expected at least 1x1: "
            "copy or export the file again"
        )
    if header.width * header.height > MAX_PIXELS:
        size = f"{header.width}x{header.height}"
        raise InputError(f"{name}: has {size} pixels, expected at most {MAX_PIXELS}: resize it first")
    return header


def _png(data: bytes, name: str) -> ImageHeader:
    _, kind, width, height, bits, colour = struct.unpack_from(">I4sIIBB", data, 8)
    if kind != b"IHDR":
        raise KeyError(kind)
    position, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        if kind == b"acTL":
            raise several_images(name, "an animation")
    if position > len(data):
        raise IndexError(position)
    return ImageHeader("png", width, height, bits, colour in (0, 4), data)


def _jpeg(data: bytes, name: str) -> ImageHeader:
    position, frame = 2, None
    while frame is None:
        while data[position] == 0xFF and data[position + 1] == 0xFF:  # fill bytes
            position += 1
        mark, marker, length = struct.unpack_from(">BBH", data, position)
        if mark != 0xFF:
            raise KeyError(mark)
        if marker == 0xE2 and data[position + 4 : position + 8] == _MPF:
            raise several_images(name, "several images (MPO)")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = struct.unpack_from(">BHHB", data, position + 4)
        position += 2 + length
    if data.rfind(b"\xff\xd9") < position:
        raise InputError(
            f"{name}: has no end-of-image mark, expected a whole JPEG: it was cut off; copy the file again"
        )
    if _NEXT_JPEG.search(data, position):
        raise several_images(name, "two JPEG images, one behind the other")
    bits, height, width, components = frame
    return ImageHeader("jpeg", width, height, bits, components == 1, data)


def _bmp(data: bytes) -> ImageHeader:
    (header_size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", data, 18)
    return ImageHeader("bmp", width, abs(height), 8, False, data)  # negative height: rows from the top
