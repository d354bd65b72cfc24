"""The header of an image file, read before anything is decoded.

It tells three things: how many pixels decoding would make (a few kilobytes can hold gigabytes), whether
the file is gray, and whether OpenCV would decode it to other values than the file holds. Under OpenCV 4.9
and 5.0 these come back without a complaint: 16-bit TIFFs with separate colour planes (scrambled) or with
gray and alpha (only the high byte), 16-bit TIFFs in which 0 is white (not inverted), 8-bit TIFFs with a
separate alpha channel (multiplied in), files with several images (all but the first dropped: TIFF
pages, animations, MPO, JPEGs behind one another), and
JPEGs that end too early (filled up with gray).
"""

from __future__ import annotations

import dataclasses
import struct

from tumorseg_runtime.core.errors import InputError

MAX_PIXELS = 100_000_000  # 100 megapixels; OpenCV itself would go on to 2**30

_PNG, _JPEG, _BMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"
_TIFF_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_TIFF_TYPES = {1: "B", 3: "H", 4: "I"}  # field types of the tags that are read here
_TIFF_WHITE_IS_ZERO, _TIFF_BLACK_IS_ZERO, _TIFF_RGB = 0, 1, 2
_TIFF_PHOTOMETRIC = {0: "gray", 1: "gray", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr"}
_SEPARATE_ALPHA = 2
_SMALL_TILE = 32  # pixels; OpenCV 5.0 refuses 8-bit TIFFs in tiles of 16x16
_MPF = b"MPF\0"  # of a JPEG with further images (cameras' previews, stereo)


@dataclasses.dataclass(frozen=True)
class ImageHeader:
    """What a header says. width, height: pixels as stored, before any EXIF rotation.

    bits: of one sample. gray: one sample per pixel, beside an alpha channel. data: the file, with a
    TIFF's alpha channel declared as one that is not multiplied in.
    """

    kind: str
    width: int
    height: int
    bits: int
    gray: bool
    data: bytes


def read_header(data: bytes, name: str) -> ImageHeader:
    """Header of a PNG, JPEG, BMP or TIFF file, told apart by content and not by the file's name.

    Raises InputError for another kind, for more than MAX_PIXELS, and for what OpenCV would get wrong.
    """
    try:
        if data.startswith(_PNG):
            header = _png(data, name)
        elif data.startswith(_JPEG):
            header = _jpeg(data, name)
        elif data.startswith(_BMP):
            header = _bmp(data)
        elif data[:4] in _TIFF_ORDERS:
            header = _tiff(data, name, _TIFF_ORDERS[data[:4]])
        else:
            raise InputError(
                f"{name}: starts with {data[:4].hex(' ')}, expected a PNG, JPEG, BMP or TIFF file: convert it"
            )
    except (struct.error, IndexError, KeyError, ValueError) as error:
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
            raise _several_images(name, "an animation")
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
            raise _several_images(name, "several images (MPO)")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = struct.unpack_from(">BHHB", data, position + 4)
        position += 2 + length
    if data.rfind(b"\xff\xd9") < position:
        raise InputError(
            f"{name}: has no end-of-image mark, expected a whole JPEG: it was cut off; copy the file again"
        )
    if data.find(b"\xff\xd9\xff\xd8\xff", position) >= 0:
        raise _several_images(name, "two JPEG images, one behind the other")
    bits, height, width, components = frame
    return ImageHeader("jpeg", width, height, bits, components == 1, data)


def _bmp(data: bytes) -> ImageHeader:
    (header_size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", data, 18)
    return ImageHeader("bmp", width, abs(height), 8, False, data)  # negative height: rows from the top


def _tiff(data: bytes, name: str, order: str) -> ImageHeader:
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    tags: dict[int, tuple[int, ...]] = {}
    alpha_at = None
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, field, number = struct.unpack_from(order + "HHI", data, entry)
        if field not in _TIFF_TYPES or number > 16:
            continue
        form = f"{order}{number}{_TIFF_TYPES[field]}"
        at = entry + 8
        if struct.calcsize(form) > 4:
            (at,) = struct.unpack_from(order + "I", data, at)
        tags[tag] = struct.unpack_from(form, data, at)
        if tag == 338:
            alpha_at = at
    if struct.unpack_from(order + "I", data, directory + 2 + 12 * count)[0]:
        raise _several_images(name, "more than one image")
    (width,), (height,), (photometric,) = tags[256], tags[257], tags[262]
    all_bits = tags.get(258, (1,))
    (samples,), (planes,) = tags.get(277, (1,)), tags.get(284, (1,))
    gray = photometric in (_TIFF_WHITE_IS_ZERO, _TIFF_BLACK_IS_ZERO)
    bits = max(all_bits)
    colour = _TIFF_PHOTOMETRIC.get(photometric, f"photometric interpretation {photometric}")
    wide = bits > 8 and (
        bits not in (16, 32, 64)
        or (photometric, samples) not in ((_TIFF_BLACK_IS_ZERO, 1), (_TIFF_RGB, 3), (_TIFF_RGB, 4))
        or (samples > 1 and planes != 1)
    )
    if wide or len(set(all_bits)) > 1 or photometric not in _TIFF_PHOTOMETRIC:
        raise InputError(
            f"{name}: is a TIFF with {samples} samples of {'/'.join(map(str, sorted(set(all_bits))))} bits, "
            f"{colour}{', 0 is white' if photometric == _TIFF_WHITE_IS_ZERO else ''}"
            f"{', in separate planes' if planes != 1 else ''}, which OpenCV decodes wrongly or not at all: "
            "convert it to PNG"
        )
    if bits <= 8 and 322 in tags and min(tags[322] + tags[323]) < _SMALL_TILE:
        raise InputError(
            f"{name}: is a TIFF in tiles of {tags[322][0]}x{tags[323][0]}, which OpenCV does not decode: "
            "convert it to PNG"
        )
    if alpha_at is not None and _SEPARATE_ALPHA in tags[338]:
        value = b"\0\0" if tags[338] == (_SEPARATE_ALPHA,) else None
        if value is None:
            raise InputError(
                f"{name}: is a TIFF with {len(tags[338])} extra channels, expected one: convert it to PNG"
            )
        data = data[:alpha_at] + value + data[alpha_at + 2 :]
    return ImageHeader("tiff", width, height, bits, gray, data)


def _several_images(name: str, what: str) -> InputError:
    return InputError(f"{name}: holds {what}, expected a single image: split it, one file per image")
