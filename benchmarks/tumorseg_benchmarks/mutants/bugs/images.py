"""Bugs of reading: files of one kind become other pixels."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.mutants.bugs.preprocessing import decoded_by
from tumorseg_benchmarks.mutants.mutant import Apply, Mutant
from tumorseg_runtime.images import read

UInt8Array = npt.NDArray[np.uint8]
QUALITY = 90  # of the JPEG that a camera's link makes
ORIENTATION = b"\x01\x12\x00\x03\x00\x00\x00\x01"  # EXIF's entry, before its value


def files(test: Callable[[bytes], bool], change: Callable[[UInt8Array], UInt8Array]) -> Apply:
    """Another reading of the files that a test on their bytes picks."""
    return decoded_by(lambda data, pixels: np.ascontiguousarray(change(pixels)) if test(data) else pixels)


def jpeg(data: bytes) -> bool:
    """A JPEG."""
    return data[:2] == b"\xff\xd8"


def progressive(data: bytes) -> bool:
    """A progressive JPEG."""
    return jpeg(data) and b"\xff\xc2" in data


def bmp(data: bytes) -> bool:
    """A BMP whose rows go upwards."""
    return data[:2] == b"BM" and struct.unpack_from("<i", data, 22)[0] > 0


def top_down(data: bytes) -> bool:
    """A BMP whose rows go downwards."""
    return data[:2] == b"BM" and struct.unpack_from("<i", data, 22)[0] < 0


def tiff(data: bytes) -> bool:
    """A TIFF."""
    return data[:4] in (b"II*\0", b"MM\0*")


def tiled(data: bytes) -> bool:
    """A TIFF in tiles: it has tag 324."""
    return tiff(data) and 324 in _tags(data)


def striped(data: bytes) -> bool:
    """A TIFF with more than one strip."""
    return tiff(data) and _tags(data).get(273, (1, 0))[0] > 1


def tiff_with(tag: int, value: int) -> Callable[[bytes], bool]:
    """A TIFF whose tag has this value."""
    return lambda data: tiff(data) and _tags(data).get(tag) == (1, value)


def _tags(data: bytes) -> dict[int, tuple[int, int]]:
    """Of a TIFF: tag -> number of values, and the first if it is a short."""
    order = "<" if data[:1] == b"I" else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    entries = (struct.unpack_from(f"{order}HHIH", data, start + 2 + 12 * n) for n in range(count))
    return {tag: (values, first) for tag, _, values, first in entries}


def sixteen_bits(change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Apply:
    """Another reading of the 16 bits of a TIFF, before they become 8."""

    def rule(data: bytes, pixels: UInt8Array) -> UInt8Array:
        raw = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if tiff(data) else None
        if raw is None or raw.dtype != np.uint16:
            return pixels
        found = read.to_uint8(change(raw))
        return found if found.ndim == 2 else np.ascontiguousarray(found[:, :, ::-1])

    return decoded_by(rule)


def png(depth: int | None = None, colour: int | None = None, interlaced: bool | None = None) -> Any:
    """A PNG of this depth, colour type and interlacing."""

    def test(data: bytes) -> bool:
        return (
            data[:4] == b"\x89PNG"
            and depth in (None, data[24])
            and colour in (None, data[25])
            and interlaced in (None, data[28] == 1)
        )

    return test


def oriented(*values: int) -> Callable[[bytes], bool]:
    """A JPEG with one of these orientations in its EXIF."""

    def test(data: bytes) -> bool:
        at = data.find(ORIENTATION)
        return jpeg(data) and at >= 0 and int.from_bytes(data[at + 8 : at + 10], "big") in values

    return test


def everything(data: bytes) -> bool:
    """Any file."""
    return True


def swapped(pixels: UInt8Array) -> UInt8Array:
    """B, G, R."""
    return pixels if pixels.ndim == 2 else pixels[:, :, ::-1]


def large_swapped(pixels: UInt8Array) -> UInt8Array:
    """B, G, R where both sides are beyond 1024 pixels."""
    return swapped(pixels) if min(pixels.shape[:2]) > 1024 else pixels


def big_tiff(data: bytes) -> bool:
    """With offsets of 8 bytes."""
    return data.startswith((b"II+\0", b"MM\0+"))


def collapsed(pixels: UInt8Array) -> UInt8Array:
    """Colour whose channels are nearly equal is taken for gray, kept in three channels."""
    if pixels.ndim == 2 or np.ptp(pixels.astype(np.int16), axis=2).max() > 2:
        return pixels
    return np.repeat(pixels[:, :, :1], 3, axis=2)


def gray_of_colour(pixels: UInt8Array) -> UInt8Array:
    """All colour becomes gray, kept in three channels."""
    if pixels.ndim == 2:
        return pixels
    return np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def thumbnail(limit: int) -> Callable[[UInt8Array], UInt8Array]:
    """What is larger than `limit` is read at half its size and enlarged again."""

    def change(pixels: UInt8Array) -> UInt8Array:
        height, width = pixels.shape[:2]
        if max(height, width) <= limit:
            return pixels
        small = cv2.resize(pixels, (max(1, width // 2), max(1, height // 2)))
        return np.asarray(cv2.resize(small, (width, height)), np.uint8)

    return change


def recompressed(data: bytes, pixels: UInt8Array) -> UInt8Array:
    """Through a JPEG on the way."""
    stored = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    again = cv2.imdecode(stored, cv2.IMREAD_UNCHANGED)
    assert again is not None
    return np.asarray(again, np.uint8)


def palette_indices(data: bytes, pixels: UInt8Array) -> UInt8Array:
    """A palette's indices for gray values."""
    import io

    from PIL import Image

    image = Image.open(io.BytesIO(data)) if data.startswith(b"\x89PNG") else None
    return np.asarray(image) if image is not None and image.mode == "P" else pixels


MUTANTS = (
    *(
        Mutant(name, "images", apply)
        for name, apply in (
            ("colour JPEG read as BGR", files(jpeg, swapped)),
            ("progressive JPEG read black", files(progressive, np.zeros_like)),
            ("JPEG upside down", files(jpeg, lambda p: p[::-1])),
            ("EXIF 2 and 4 exchanged", files(oriented(2, 4), lambda p: p[::-1, ::-1])),
            ("EXIF 3 ignored", files(oriented(3), lambda p: p[::-1, ::-1])),
            ("EXIF 5 and 7 exchanged", files(oriented(5, 7), lambda p: p[::-1, ::-1])),
            ("EXIF 6 and 8 exchanged", files(oriented(6, 8), lambda p: p[::-1, ::-1])),
            ("EXIF 6 mirrored", files(oriented(6), lambda p: p[:, ::-1])),
            ("BMP upside down", files(bmp, lambda p: p[::-1])),
            ("BMP of rows from the top flipped", files(top_down, lambda p: p[::-1])),
            ("BMP read as BGR", files(bmp, swapped)),
            ("TIFF upside down", files(tiff, lambda p: p[::-1])),
            ("tiles of a TIFF in another order", files(tiled, lambda p: np.roll(p, p.shape[1] // 2, 1))),
            ("near-gray RGB collapsed to gray", files(everything, collapsed)),
            ("all colour turned to gray", files(everything, gray_of_colour)),
            (
                "interlaced PNG: rows doubled",
                files(png(interlaced=True), lambda p: p[np.arange(len(p)) // 2 * 2]),
            ),
            ("PNG of one bit inverted", files(png(depth=1), lambda p: 255 - p)),
            ("PNG of 16 bits mirrored", files(png(depth=16), lambda p: p[:, ::-1])),
            ("palette read as BGR", files(png(colour=3), swapped)),
            ("gray with alpha: the last row lost", files(png(colour=4), lambda p: np.roll(p, 1, 0))),
            ("images above 1024 pixels read as thumbnails", files(everything, thumbnail(1024))),
            ("images above 2048 pixels read as thumbnails", files(everything, thumbnail(2048))),
            ("EXIF 2 ignored", files(oriented(2), lambda p: p[:, ::-1])),
            ("EXIF 4 turned by 180 degrees", files(oriented(4), lambda p: p[:, ::-1])),
            ("EXIF 5 mirrored", files(oriented(5), lambda p: p[:, ::-1])),
            ("EXIF 7 upside down", files(oriented(7), lambda p: p[::-1])),
            ("EXIF 8 mirrored", files(oriented(8), lambda p: p[:, ::-1])),
            ("orientation of a TIFF ignored", files(tiff_with(274, 8), lambda p: np.rot90(p, -1))),
            ("strips of a TIFF in another order", files(striped, lambda p: np.roll(p, len(p) // 2, 0))),
            ("TIFF of 16 bits cut to the low byte", sixteen_bits(lambda raw: raw & 255)),
            ("TIFF of 16 bits in the other byte order", sixteen_bits(lambda raw: raw.byteswap())),
            ("TIFF read as BGR", files(tiff, swapped)),
            ("white of a TIFF is not zero", files(tiff_with(262, 0), lambda p: 255 - p)),
            ("RGBA read as BGR", files(png(colour=6), swapped)),
            ("large colour images read as BGR", files(everything, large_swapped)),
            ("PNM read as BGR", files(lambda data: data.startswith(b"P6"), swapped)),
            ("PGM mirrored", files(lambda data: data.startswith(b"P5"), lambda p: p[:, ::-1])),
            ("BigTIFF upside down", files(big_tiff, lambda p: p[::-1])),
        )
    ),
    Mutant("frames recompressed as JPEG", "images", decoded_by(recompressed), late=True),
    Mutant("palette's indices for its colours", "images", decoded_by(palette_indices), late=True),
)
