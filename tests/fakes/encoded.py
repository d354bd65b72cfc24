"""Image files of forms that no library writes, made byte by byte."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt


def encoded_png(
    width: int, height: int, bits: int, colour: int, rows: list[bytes], chunks: tuple[bytes, ...] = ()
) -> bytes:
    """rows: packed samples of each row. chunks: type and content, put between IHDR and IDAT."""

    def chunk(content: bytes) -> bytes:
        return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))

    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(c) for c in (header, *chunks, data, b"IEND"))


def encoded_tiff(
    pixels: npt.NDArray[Any],
    photometric: int,
    *,
    extra: int | None = None,
    planes: int = 1,
    orientation: int = 1,
    order: str = "<",
    next_directory: int = 0,
    size: tuple[int, int] | None = None,
) -> bytes:
    """pixels: (H, W) or (H, W, C). extra: the kind of the last channel (1 multiplied in, 2 separate alpha).
    size: height and width to declare in place of the real ones."""
    pixels = np.atleast_3d(pixels)
    height, width, channels = pixels.shape
    stored = pixels if planes == 1 else pixels.transpose(2, 0, 1)
    data = stored.astype(pixels.dtype.newbyteorder(order)).tobytes()
    strips = channels if planes == 2 else 1
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    declared = size or (height, width)
    bits = pixels.dtype.itemsize * 8
    tags: list[tuple[int, str, list[int]]] = [
        (256, "I", [declared[1]]), (257, "I", [declared[0]]), (258, "H", [bits] * channels),
        (259, "H", [1]), (262, "H", [photometric]), (273, "I", [0] * strips), (274, "H", [orientation]),
        (277, "H", [channels]), (278, "I", [declared[0]]), (279, "I", [len(data) // strips] * strips),
        (284, "H", [planes]),
    ]  # fmt: skip
    if extra is not None:
        tags.append((338, "H", [extra]))
    tags.append((339, "H", [kind] * channels))
    outside = 8 + 2 + 12 * len(tags) + 4  # where values of more than four bytes go
    start = outside + 128
    entries, values = b"", b""
    for tag, form, numbers in tags:
        if tag == 273:
            numbers = [start + index * (len(data) // strips) for index in range(strips)]
        raw = struct.pack(f"{order}{len(numbers)}{form}", *numbers)
        if len(raw) > 4:
            raw, values = struct.pack(order + "I", outside + len(values)), values + raw
        entries += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[form], len(numbers)) + raw.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    return head + entries + struct.pack(order + "I", next_directory) + values.ljust(128, b"\0") + data
