"""Writers of PNG, BMP, TIFF and JPEG files, by hand from the formats' rules, to know what a file holds.

The reader under test uses OpenCV; nothing here does, but for the entropy coding of JPEG.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]

# first row, first column, step down, step across of the seven passes of an interlaced PNG
_ADAM7 = (
    (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1),
)  # fmt: skip
_WHOLE = ((0, 0, 1, 1),)
_PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels


def encode_png(
    pixels: npt.NDArray[Any],
    palette: UInt8Array | None = None,
    *,
    interlaced: bool = False,
    level: int = 6,
) -> bytes:
    """PNG of bool, uint8 or uint16 pixels (H, W) or (H, W, 2 to 4); the last of 2 or 4 channels is alpha.

    palette: uint8 (N, 3) RGB that the pixels point into. level: zlib's, 0 to 9.
    """
    height, width = pixels.shape[:2]
    colour = 3 if palette is not None else _PNG_COLOURS[pixels.shape[2] if pixels.ndim == 3 else 1]
    depth = 1 if pixels.dtype == np.bool_ else pixels.dtype.itemsize * 8
    rows = []
    for top, left, down, across in _ADAM7 if interlaced else _WHOLE:
        part = pixels[top::down, left::across]
        if part.size:
            packed = np.packbits(part, axis=1) if depth == 1 else part.astype(part.dtype.newbyteorder(">"))
            rows += [b"\0" + row.tobytes() for row in packed]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))]
    if palette is not None:
        chunks.append((b"PLTE", palette.tobytes()))
    chunks += [(b"IDAT", zlib.compress(b"".join(rows), level)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def encode_bmp(pixels: UInt8Array, palette: UInt8Array | None = None, *, top_down: bool = False) -> bytes:
    """BMP of (H, W, 3) RGB pixels in 24 bits, or of (H, W) in 8 bits that point into a palette.

    palette: uint8 (256, 3) RGB, None for grays. top_down: rows from the top, which a negative height says.
    """
    height, width = pixels.shape[:2]
    table = b""
    if pixels.ndim == 2:
        colours = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1) if palette is None else palette
        table = np.pad(colours[:, ::-1], ((0, 0), (0, 1))).tobytes()  # B, G, R, 0
    rows = np.ascontiguousarray(pixels if pixels.ndim == 2 else pixels[..., ::-1]).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    body = (rows if top_down else rows[::-1]).tobytes()
    start = 14 + 40 + len(table)
    return b"".join((
        struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start),
        struct.pack("<IiiHH", 40, width, -height if top_down else height, 1, 8 if pixels.ndim == 2 else 24),
        struct.pack("<IIiiII", 0, len(body), 2835, 2835, len(table) // 4, 0),  # 72 dpi
        table,
        body,
    ))  # fmt: skip


def encode_tiff(
    pixels: npt.NDArray[Any],
    *,
    order: Literal["<", ">"] = "<",
    rows_per_strip: int | None = None,
    tile: int | None = None,
    orientation: int = 1,
    white_is_zero: bool = False,
    deflated: bool = False,
    big: bool = False,
) -> bytes:
    """TIFF, or BigTIFF, of uint8 or uint16 pixels (H, W) or (H, W, 3) RGB.

    order: '<' little or '>' big endian. tile: side of square tiles in pixels, a multiple of 16, in place of
    strips. white_is_zero: how the values are to be understood; they are stored as given.
    """
    height, width = pixels.shape[:2]
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    stored = pixels.astype(pixels.dtype.newbyteorder(order))
    step = tile or rows_per_strip or height
    if tile:
        margins = ((0, -height % tile), (0, -width % tile), (0, 0))[: pixels.ndim]
        stored = np.pad(stored, margins)
    blocks = [
        stored[top : top + step, left : left + (tile or width)].tobytes()
        for top in range(0, height, step)
        for left in range(0, width, tile or width)
    ]
    if deflated:
        blocks = [zlib.compress(block) for block in blocks]
    counts = [len(block) for block in blocks]
    starts = [(16 if big else 8) + sum(counts[:place]) for place in range(len(blocks))]
    photometric = 2 if samples == 3 else int(not white_is_zero)
    entries = [
        (256, "I", [width]), (257, "I", [height]), (258, "H", [pixels.dtype.itemsize * 8] * samples),
        (259, "H", [8 if deflated else 1]), (262, "H", [photometric]), (274, "H", [orientation]),
        (277, "H", [samples]),
    ]  # fmt: skip
    if tile:
        entries += [(322, "I", [tile]), (323, "I", [tile]), (324, "I", starts), (325, "I", counts)]
    else:
        entries += [(273, "I", starts), (278, "I", [step]), (279, "I", counts)]
    body = b"".join(blocks)
    body += bytes(len(body) % 2)
    return _tiff_directory(body, sorted(entries), order, big=big)


def _tiff_directory(
    body: bytes, entries: list[tuple[int, str, list[int]]], order: str, *, big: bool
) -> bytes:
    """A file of the body, then the values that do not fit into an entry, then the entries."""
    width, inline, head = ("Q", 8, 16) if big else ("I", 4, 8)
    directory = struct.pack(order + ("Q" if big else "H"), len(entries))
    tail = b""
    for tag, form, values in entries:
        packed = struct.pack(f"{order}{len(values)}{form}", *values)
        if len(packed) > inline:
            place = struct.pack(order + width, head + len(body) + len(tail))
            tail += packed + bytes(len(packed) % 2)
            packed = place
        kind = {"H": 3, "I": 4}[form]
        directory += struct.pack(f"{order}HH{width}", tag, kind, len(values)) + packed.ljust(inline, b"\0")
    mark = b"II" if order == "<" else b"MM"
    mark += struct.pack(f"{order}HHH", 43, 8, 0) if big else struct.pack(f"{order}H", 42)
    first = struct.pack(order + width, head + len(body) + len(tail))
    return mark + first + body + tail + directory + bytes(inline)


def encode_pnm(pixels: UInt8Array) -> bytes:
    """PGM of (H, W) or PPM of (H, W, 3) RGB pixels."""
    height, width = pixels.shape[:2]
    return f"P{5 if pixels.ndim == 2 else 6} {width} {height} 255\n".encode() + pixels.tobytes()


def encode_jpeg(
    pixels: UInt8Array,
    *,
    orientation: int | None = None,
    progressive: bool = False,
    halved_chroma: bool = False,
) -> bytes:
    """JPEG of (H, W) or (H, W, 3) RGB pixels at the best quality.

    Pixels that are constant in each block of 8x8 survive bit for bit, if their colour survives the way to
    YCbCr and back; with halved_chroma (4:2:0) if the whole image has one chroma.
    orientation: 1 to 8, written into an EXIF header; None for none.
    """
    chroma = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if halved_chroma else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    options = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, chroma]
    stored = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., ::-1])
    encoded = cv2.imencode(".jpg", stored, options)[1].tobytes()
    if orientation is None:
        return encoded
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    return encoded[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + encoded[2:]


def oriented(stored: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """What is to be shown of stored pixels, by the orientation of EXIF or TIFF, 1 to 8."""
    if orientation in (5, 6, 7, 8):  # stored rows are columns
        stored = stored.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    return np.ascontiguousarray(stored)
