"""Conformance files: images of every kind that is read, made in code, and the bits that they must become.

`golden_vectors.json` beside this module holds what each file must give, as SHA-256: the pixels of each frame,
and under each contract of `CONTRACTS` the first frame's resized uint8 image (the deploy form's input) and
float32 tensor. The files' own bytes may differ between versions of zlib or libjpeg; what they decode to may
not.

The rules are those of `images` and `processing.preprocess`. The hashes were computed from the values that
went into the files and by the rule of the resize written out in integers, not by reading the files
(tests/runtime/conformance/test_files.py does it again).
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.conformance.dicom_vectors import dicom_vectors
from tumorseg_runtime.conformance.file_formats import (
    encode_bmp,
    encode_jpeg,
    encode_png,
    encode_pnm,
    encode_tiff,
    oriented,
)
from tumorseg_runtime.conformance.integer_rules import by_extremes
from tumorseg_runtime.conformance.scenes import COLOURS, colour_scene, labels, noise, scene
from tumorseg_runtime.conformance.vector import CONTRACTS, Vector
from tumorseg_runtime.core.records import Format, Sha256

__all__ = ["CONTRACTS", "EXPECTED", "Vector", "digest", "expected_digests", "vectors"]

UInt8Array = npt.NDArray[np.uint8]

EXPECTED = Path(__file__).with_name("golden_vectors.json")
_FORMAT = Format("list of hashes", "install tumorseg again")
BLOCK = np.ones((8, 8), np.uint8)  # JPEG keeps pixels that are constant in such a block


def digest(array: npt.NDArray[Any]) -> str:
    """SHA-256 of an array: its dtype, its shape and its little-endian values, row by row."""
    head = f"{array.dtype.name} {array.shape} ".encode()
    values = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(head + values.tobytes()).hexdigest()


@functools.cache
def expected_digests() -> dict[str, dict[str, str]]:
    """Hashes by the vector's name and 'pixels', '<contract> resized' or '<contract> tensor'.

    Further frames have their pixels alone: 'pixels[1]', 'pixels[2]' and so on.
    """
    values: dict[str, dict[str, str]] = _FORMAT.read(EXPECTED, dict[str, dict[str, Sha256]])
    return values


@functools.cache
def vectors() -> tuple[Vector, ...]:
    """All conformance files, the same on every machine."""
    return (*_png(), *_jpeg(), *_bmp(), *_tiff(), *_pnm(), *dicom_vectors())


def _png() -> list[Vector]:
    gray, colour, tall, wide = scene(90, 130), colour_scene(75, 110), noise(211, 37), noise(23, 157, 3)
    tiny, dot, row, column = noise(1, 1), noise(1, 1, 3), noise(1, 300), noise(300, 1, start=5)
    same, same_gray, same_narrow = colour_scene(64, 96, 3), scene(64, 96, 4), scene(96, 32, 5)
    large, long, broad = scene(1100, 1300), scene(1025, 40, 7), colour_scene(33, 1030, 8)
    large_colour = colour_scene(1030, 1040, 9)
    deep = scene(61, 85).astype(np.uint16) * 150 + noise(61, 85, start=7)
    deep_rgb = colour_scene(60, 73).astype(np.uint16) * 200 + 900
    clear = np.concatenate([colour, noise(75, 110, start=5)[..., None]], axis=2)  # RGBA
    gray_alpha = np.stack([gray, noise(90, 130, start=9)], axis=2)
    near = np.repeat(same_gray[..., None], 3, axis=2)  # of the network's size: no resize hides it
    near[[3, 40, 60], [90, 60, 7], [0, 1, 2]] += 1  # three values of 18,432: colour all the same
    equal = np.repeat(scene(50, 60, 6)[..., None], 3, axis=2)
    bits = labels(70, 101) > 0
    return [
        Vector("gray.png", encode_png(gray), (gray,)),
        Vector("rgb.png", encode_png(colour), (colour,)),
        Vector("wide-rgb.png", encode_png(wide), (wide,)),
        Vector("tall-gray.png", encode_png(tall), (tall,)),
        Vector("1x1-gray.png", encode_png(tiny), (tiny,)),
        Vector("1x1-rgb.png", encode_png(dot), (dot,)),
        Vector("1x300-gray.png", encode_png(row), (row,)),
        Vector("300x1-gray.png", encode_png(column), (column,)),
        Vector("large-gray.png", encode_png(large, level=1), (large,)),
        Vector("large-rgb.png", encode_png(large_colour, level=1), (large_colour,)),
        Vector("1025x40-gray.png", encode_png(long), (long,)),
        Vector("33x1030-rgb.png", encode_png(broad), (broad,)),
        Vector("network-size-rgb.png", encode_png(same), (same,)),
        Vector("network-size-gray.png", encode_png(same_gray), (same_gray,)),
        Vector("network-size-narrow.png", encode_png(same_narrow), (same_narrow,)),
        Vector("16-bit-gray.png", encode_png(deep), (by_extremes(deep),)),
        Vector("16-bit-rgb.png", encode_png(deep_rgb), (by_extremes(deep_rgb),)),
        Vector("rgba.png", encode_png(clear), (colour,)),  # alpha is dropped, never multiplied in
        Vector("gray-alpha.png", encode_png(gray_alpha), (gray,)),
        Vector("near-gray-rgb.png", encode_png(near), (near,)),
        Vector("equal-channels-rgb.png", encode_png(equal), (equal,)),
        Vector("palette.png", encode_png(labels(80, 95), COLOURS), (COLOURS[labels(80, 95)],)),
        Vector("1-bit.png", encode_png(bits), (bits.astype(np.uint8) * np.uint8(255),)),
        Vector("interlaced-gray.png", encode_png(gray[:77], interlaced=True), (gray[:77],)),
        Vector("interlaced-rgb.png", encode_png(colour[:, :59], interlaced=True), (colour[:, :59],)),
    ]  # fmt: skip


def _jpeg() -> list[Vector]:
    gray = np.kron(scene(12, 17), BLOCK)
    colour = COLOURS[np.kron(labels(14, 19), BLOCK)]
    # With 4:2:0 one chroma for the whole image, as its planes are interpolated: Cb 100, Cr 160.
    luma = np.kron(scene(13, 16) // 2 + 80, BLOCK)[..., None]
    halved = luma + np.array([45, 243, 206], np.uint8)  # + 45, - 13, - 50, modulo 256
    return [
        Vector("baseline-gray.jpg", encode_jpeg(gray), (gray,)),
        Vector("progressive-gray.jpg", encode_jpeg(gray, progressive=True), (gray,)),
        Vector("baseline-rgb.jpg", encode_jpeg(colour), (colour,)),
        Vector("progressive-rgb.jpg", encode_jpeg(colour, progressive=True), (colour,)),
        Vector("halved-chroma-rgb.jpg", encode_jpeg(halved, halved_chroma=True), (halved,)),
        *(
            Vector(f"exif-{one}.jpg", encode_jpeg(gray, orientation=one), (oriented(gray, one),))
            for one in range(1, 9)
        ),
        Vector("exif-6-rgb.jpg", encode_jpeg(colour, orientation=6), (oriented(colour, 6),)),
    ]


def _bmp() -> list[Vector]:
    colour, gray, shapes = colour_scene(66, 91, 2), scene(58, 79, 2), labels(60, 82)
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(COLOURS)] = COLOURS
    return [
        Vector("24-bit.bmp", encode_bmp(colour), (colour,)),
        Vector("24-bit-top-down.bmp", encode_bmp(colour, top_down=True), (colour,)),
        Vector("8-bit-gray.bmp", encode_bmp(gray), (gray,)),
        Vector("8-bit-palette.bmp", encode_bmp(shapes, palette), (palette[shapes],)),
    ]


def _tiff() -> list[Vector]:
    gray, colour, huge = scene(83, 119, 1), colour_scene(71, 88, 1), scene(2000, 3000)
    deep = scene(77, 64).astype(np.uint16) * 211 + noise(77, 64, start=3)
    deep_rgb = colour_scene(45, 58).astype(np.uint16) * 190 + 77
    return [
        Vector("gray.tif", encode_tiff(gray), (gray,)),
        Vector("striped-gray.tif", encode_tiff(gray, rows_per_strip=10), (gray,)),
        Vector("white-is-zero.tif", encode_tiff(255 - gray, white_is_zero=True), (gray,)),
        Vector("deflated-gray.tif", encode_tiff(gray, deflated=True), (gray,)),
        Vector("16-bit-little-endian.tif", encode_tiff(deep), (by_extremes(deep),)),
        Vector("16-bit-big-endian.tif", encode_tiff(deep, order=">"), (by_extremes(deep),)),
        Vector("16-bit-rgb.tif", encode_tiff(deep_rgb), (by_extremes(deep_rgb),)),
        Vector("rgb.tif", encode_tiff(colour, rows_per_strip=16), (colour,)),
        Vector("big-endian-rgb.tif", encode_tiff(colour, order=">"), (colour,)),
        Vector("big-tiff-gray.tif", encode_tiff(gray, big=True), (gray,)),
        Vector("big-tiff-big-endian-rgb.tif", encode_tiff(colour, order=">", big=True), (colour,)),
        Vector("tiled-gray.tif", encode_tiff(gray, tile=32), (gray,)),
        Vector("tiled-rgb.tif", encode_tiff(colour, tile=64), (colour,)),
        Vector("orientation-8.tif", encode_tiff(gray, orientation=8), (oriented(gray, 8),)),
        Vector("2000x3000-gray.tif", encode_tiff(huge, rows_per_strip=500), (huge,)),
    ]


def _pnm() -> list[Vector]:
    gray, colour = scene(56, 67, 3), colour_scene(49, 70, 4)
    return [
        Vector("gray.pgm", encode_pnm(gray), (gray,)),
        Vector("rgb.ppm", encode_pnm(colour), (colour,)),
    ]
