"""Golden vectors of preprocessing: files of every odd kind, made in code, and the bits that they must become.

`golden_vectors.json` beside this module holds what each file must give, as SHA-256: its pixels, and under
each contract of `CONTRACTS` the resized uint8 image (the deploy form's input) and the float32 tensor. The
files' own bytes may differ between versions of zlib or libjpeg; what they decode to may not.

The rules are those of `images`, `dicom` and `preprocess`. The hashes were computed from the values that went
into the files and by the rule of the resize written out in integers, not by reading the files
(tests/runtime/test_golden_vectors.py does it again).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.records import Format, Sha256

UInt8Array = npt.NDArray[np.uint8]

EXPECTED = Path(__file__).with_name("golden_vectors.json")
_FORMAT = Format("list of hashes", "install tumorseg again")
# Gray files go through both, coloured ones through the first alone: the second takes gray.
CONTRACTS = {
    "rgb": Contract(height=64, width=96),
    "gray": Contract(height=96, width=32, mean=(0.3,), std=(0.2,)),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Vector:
    """One file. name: with its suffix. pixels: uint8 (H, W) or (H, W, 3) RGB that reading it must give."""

    name: str
    data: bytes
    pixels: UInt8Array

    @property
    def dicom(self) -> bool:
        """Whether reading it needs the extra `dicom`."""
        return self.name.endswith(".dcm")

    @property
    def contracts(self) -> dict[str, Contract]:
        """The contracts that take it."""
        return CONTRACTS if self.pixels.ndim == 2 else {"rgb": CONTRACTS["rgb"]}


def digest(array: npt.NDArray[Any]) -> str:
    """SHA-256 of an array: its dtype, its shape and its little-endian values, row by row."""
    head = f"{array.dtype.name} {array.shape} ".encode()
    values = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(head + values.tobytes()).hexdigest()


@functools.cache
def expected_digests() -> dict[str, dict[str, str]]:
    """Hashes by the vector's name and 'pixels', '<contract> resized' or '<contract> tensor'."""
    values: dict[str, dict[str, str]] = _FORMAT.read(EXPECTED, dict[str, dict[str, Sha256]])
    return values


@functools.cache
def vectors() -> tuple[Vector, ...]:
    """All golden vectors, the same on every machine."""
    wide, tall, tiny, dot = noise(23, 157, 3), noise(211, 37), noise(1, 1), noise(1, 1, 3)
    line, large, same = noise(1, 300), noise(700, 900), noise(64, 96, 3)
    deep = noise(61, 45).astype(np.uint16) * 150 + noise(61, 45, start=7)
    deep_rgb = noise(40, 33, 3).astype(np.uint16) * 200 + 900
    clear = np.concatenate([wide, noise(23, 157, start=5)[..., None]], axis=2)  # RGBA
    gray_alpha = np.stack([tall, noise(211, 37, start=9)], axis=2)
    palette, chosen = noise(256, 3, start=3), noise(50, 70, start=11)
    bits = noise(30, 41) > 127
    blocks = np.kron(noise(5, 9, start=13), np.ones((8, 8), np.uint8))  # flat blocks survive JPEG bit for bit
    return (
        Vector("wide-rgb.png", encode_png(wide), wide),
        Vector("tall-gray.png", encode_png(tall), tall),
        Vector("1x1-gray.png", encode_png(tiny), tiny),
        Vector("1x1-rgb.png", encode_png(dot), dot),
        Vector("1x300-gray.png", encode_png(line), line),
        Vector("large-gray.png", encode_png(large), large),
        Vector("network-size-rgb.png", encode_png(same), same),
        Vector("16-bit-gray.png", encode_png(deep), _stats(deep)),
        Vector("16-bit-rgb.png", encode_png(deep_rgb), _stats(deep_rgb)),
        Vector("rgba.png", encode_png(clear), wide),  # alpha is dropped, never multiplied in
        Vector("gray-alpha.png", encode_png(gray_alpha), tall),
        Vector("palette.png", encode_png(chosen, palette=palette), palette[chosen]),
        Vector("1-bit.png", encode_png(bits), bits.astype(np.uint8) * np.uint8(255)),
        Vector("exif-6.jpg", _jpeg(blocks, 6), np.ascontiguousarray(np.rot90(blocks, -1))),
        Vector("exif-3.jpg", _jpeg(blocks, 3), np.ascontiguousarray(blocks[::-1, ::-1])),
        Vector("monochrome1.dcm", _dicom(tall, 8), 255 - tall),
        Vector("monochrome1-12-bit.dcm", _dicom(deep % 4096, 12, (2048, 3001)), 255 - _window(deep % 4096)),
    )


def noise(*shape: int, start: int = 0) -> UInt8Array:
    """uint8 values that look like noise, from integers alone."""
    index = np.arange(start, start + int(np.prod(shape)), dtype=np.uint64)
    return ((index * np.uint64(2654435761) >> np.uint64(13)) & np.uint64(255)).astype(np.uint8).reshape(shape)


def _stats(values: npt.NDArray[np.uint16]) -> UInt8Array:
    """From the image's own minimum and maximum to 0..255, half to even, in integers."""
    low, high = int(values.min()), int(values.max())
    return _rounded((values.astype(np.int64) - low) * 255, high - low)


def _window(values: npt.NDArray[np.uint16]) -> UInt8Array:
    """DICOM's linear window of centre 2048 and width 3001: (v - 2047.5) / 3000 + 0.5, to 0..255."""
    top = (2 * values.astype(np.int64) - 4095 + 3000) * 255  # over 6000
    return _rounded(np.clip(top, 0, 6000 * 255), 6000)


def _rounded(top: npt.NDArray[np.int64], bottom: int) -> UInt8Array:
    """top / bottom, rounded half to even."""
    whole, rest = np.divmod(top, bottom)
    up = (2 * rest > bottom) | ((2 * rest == bottom) & (whole % 2 == 1))
    return np.asarray(whole + up, np.uint8)


def encode_png(pixels: npt.NDArray[Any], palette: UInt8Array | None = None) -> bytes:
    """PNG of bool, uint8 or uint16 pixels (H, W) or (H, W, 2 to 4); the last of 2 or 4 channels is alpha."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    colour = 3 if palette is not None else {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    depth = 1 if pixels.dtype == np.bool_ else pixels.dtype.itemsize * 8
    packed = np.packbits(pixels, axis=1) if depth == 1 else pixels.astype(pixels.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header)]
    if palette is not None:
        chunks.append((b"PLTE", palette.tobytes()))
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def _jpeg(pixels: UInt8Array, orientation: int) -> bytes:
    """Gray JPEG with an orientation in its EXIF, of pixels that are constant in each block of 8x8."""
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    return encoded[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + encoded[2:]


def _dicom(
    pixels: npt.NDArray[np.unsignedinteger[Any]], bits: int, window: tuple[int, int] | None = None
) -> bytes:
    """MONOCHROME1 DICOM, explicit VR, little endian; window: centre and width."""
    form = "<u1" if bits <= 8 else "<u2"
    raw = pixels.astype(form).tobytes()
    height, width = pixels.shape
    meta = _element(2, 0x10, "UI", b"1.2.840.10008.1.2.1\0")
    elements = [
        _element(0x28, 2, "US", struct.pack("<H", 1)),
        _element(0x28, 4, "CS", b"MONOCHROME1 "),
        _element(0x28, 0x10, "US", struct.pack("<H", height)),
        _element(0x28, 0x11, "US", struct.pack("<H", width)),
        _element(0x28, 0x100, "US", struct.pack("<H", np.dtype(form).itemsize * 8)),
        _element(0x28, 0x101, "US", struct.pack("<H", bits)),
        _element(0x28, 0x102, "US", struct.pack("<H", bits - 1)),
        _element(0x28, 0x103, "US", struct.pack("<H", 0)),
    ]
    if window:
        for tag, value in ((0x1050, window[0]), (0x1051, window[1])):
            elements.append(_element(0x28, tag, "DS", str(value).encode()))
    elements.append(_element(0x7FE0, 0x10, "OW", raw))
    length = _element(2, 0, "UL", struct.pack("<I", len(meta)))
    return bytes(128) + b"DICM" + length + meta + b"".join(elements)


def _element(group: int, number: int, kind: str, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2) if kind in ("OW", "UI") else b" " * (len(value) % 2)
    long = kind == "OW"
    size = struct.pack("<2xI" if long else "<H", len(value))
    return struct.pack("<HH", group, number) + kind.encode() + size + value
