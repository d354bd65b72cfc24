from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime.conformance.file_formats import encode_jpeg, encode_tiff
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images import read as images
from tumorseg_runtime.images.read import check_image, decode_image, read_image, to_uint8, write_png

Encoder = Callable[..., bytes]
RANDOM = np.random.default_rng(7)
GRAY = RANDOM.integers(0, 256, (20, 30), np.uint8)
COLOUR = RANDOM.integers(0, 256, (20, 30, 3), np.uint8)  # RGB
ALPHA = RANDOM.integers(0, 256, (20, 30), np.uint8)
WIDE = RANDOM.integers(300, 4000, (20, 30), np.uint16)


def windowed(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The rule for integers other than uint8, by exact fractions and not by the code under test."""
    values = [int(v) for v in pixels.ravel()]
    low, span = min(values), max(values) - min(values)
    out = []
    for value in values:
        whole, rest = divmod((value - low) * 255, span)
        out.append(whole + (2 * rest > span or (2 * rest == span and whole % 2 == 1)))
    return np.array(out, np.uint8).reshape(pixels.shape)


def packed(pixels: npt.NDArray[Any]) -> list[bytes]:
    return [row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels]


def transformed(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """What an EXIF orientation means for stored pixels."""
    swapped = np.swapaxes(pixels, 0, 1)
    return {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: swapped, 6: swapped[:, ::-1], 7: swapped[::-1, ::-1], 8: swapped[::-1],
    }[orientation]  # fmt: skip


def exif(orientation: int) -> bytes:
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def same(data: bytes, expected: npt.NDArray[np.uint8]) -> None:
    got = decode_image(data, "x")
    assert got.shape == expected.shape
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, expected)


def test_png_of_every_colour_type(encode_png: Encoder) -> None:
    same(encode_png(30, 20, 8, 0, packed(GRAY)), GRAY)
    same(encode_png(30, 20, 8, 2, packed(COLOUR)), COLOUR)
    same(encode_png(30, 20, 8, 6, packed(np.dstack([COLOUR, ALPHA]))), COLOUR)
    same(encode_png(30, 20, 8, 4, packed(np.dstack([GRAY, ALPHA]))), GRAY)
    same(encode_png(30, 20, 8, 0, packed(GRAY), (b"tRNS\0\5",)), GRAY)
    palette = b"PLTE" + bytes(range(255, 63, -1))  # 64 colours
    indices = GRAY // 4
    expanded = np.arange(255, 63, -1, dtype=np.uint8).reshape(64, 3)[indices]
    same(encode_png(30, 20, 8, 3, packed(indices), (palette,)), expanded)
    same(encode_png(30, 20, 8, 3, packed(indices), (palette, b"tRNS" + bytes(64))), expanded)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_png_of_few_bits_spans_0_to_255(encode_png: Encoder, bits: int) -> None:
    levels = 2**bits
    samples = (GRAY[:, :24] // (256 // levels)).astype(np.uint8)
    rows = [
        np.packbits((row[:, None] >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8)).tobytes()
        for row in samples
    ]
    same(encode_png(24, 20, bits, 0, rows), samples * np.uint8(255 // (levels - 1)))


def test_16_bits_are_windowed_and_not_truncated(encode_png: Encoder, encode_tiff: Encoder) -> None:
    same(encode_png(30, 20, 16, 0, packed(WIDE)), windowed(WIDE))
    same(encode_png(30, 20, 16, 4, packed(np.dstack([WIDE, WIDE[::-1]]))), windowed(WIDE))
    wide = np.dstack([WIDE, WIDE[::-1] + 9, WIDE[:, ::-1] // 2])
    same(encode_png(30, 20, 16, 2, packed(wide)), windowed(wide))
    same(encode_png(30, 20, 16, 6, packed(np.dstack([wide, WIDE]))), windowed(wide))
    for order in ("<", ">"):
        same(encode_tiff(WIDE, 1, order=order), windowed(WIDE))
        same(encode_tiff(wide, 2, order=order), windowed(wide))
        same(encode_tiff(np.dstack([wide, WIDE]), 2, extra=2, order=order), windowed(wide))
        same(encode_tiff(WIDE.astype(np.int16) - 2000, 1, order=order), windowed(WIDE))
    same(encode_png(30, 20, 16, 0, packed(np.full((20, 30), 777, np.uint16))), np.zeros((20, 30), np.uint8))


def test_8_bit_tiffs(encode_tiff: Encoder) -> None:
    for order in ("<", ">"):
        same(encode_tiff(GRAY, 1, order=order), GRAY)
        same(encode_tiff(GRAY, 0, order=order), 255 - GRAY)
        same(encode_tiff(COLOUR, 2, order=order), COLOUR)
        same(encode_tiff(COLOUR, 2, order=order, planes=2), COLOUR)
        same(encode_tiff(np.dstack([GRAY, ALPHA]), 1, extra=2, order=order), GRAY)
        for kind in (0, 1, 2):  # 2 is a separate alpha, which must not be multiplied in
            same(encode_tiff(np.dstack([COLOUR, ALPHA]), 2, extra=kind, order=order), COLOUR)


def test_floating_point_is_refused(encode_tiff: Encoder) -> None:
    with pytest.raises(InputError, match="x: has float32 pixels, expected integers"):
        decode_image(encode_tiff(GRAY.astype(np.float32), 1), "x")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("pixels", [GRAY, COLOUR], ids=["gray", "colour"])
def test_orientation_is_applied(
    encode_png: Encoder, encode_tiff: Encoder, orientation: int, pixels: npt.NDArray[np.uint8]
) -> None:
    colour = pixels.ndim == 3
    turned = encode_png(30, 20, 8, 2 if colour else 0, packed(pixels), (b"eXIf" + exif(orientation),))
    same(turned, transformed(pixels, orientation))
    kind = 2 if colour else 1
    same(encode_tiff(pixels, kind, orientation=orientation), transformed(pixels, orientation))
    wide = pixels.astype(np.uint16) * 257
    wide.flat[:2] = 0, 65535
    exact = pixels.copy()
    exact.flat[:2] = 0, 255
    same(encode_tiff(wide, kind, orientation=orientation), transformed(exact, orientation))
    ok, encoded = cv2.imencode(".jpg", pixels if not colour else np.ascontiguousarray(pixels[:, :, ::-1]))
    assert ok
    plain = encoded.tobytes()
    segment = b"Exif\0\0" + exif(orientation)
    jpeg = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]
    same(jpeg, transformed(decode_image(plain, "x"), orientation))


def test_a_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="Pillow makes the CMYK file")
    smooth = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None], 48, axis=0)
    rgb = np.dstack([smooth, smooth[:, ::-1], np.full_like(smooth, 90)])
    path = tmp_path / "cmyk.jpg"
    pillow.fromarray(rgb).convert("CMYK").save(path, quality=100)
    got = read_image(path)
    assert got.shape == rgb.shape
    assert np.abs(got.astype(int) - rgb).max() <= 8


def test_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "really_a_jpeg.png"
    ok, data = cv2.imencode(".jpg", np.full((8, 8), 99, np.uint8))
    assert ok
    path.write_bytes(data.tobytes())
    np.testing.assert_array_equal(read_image(path), 99)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.gif", b"GIF89a", "got a '.gif' file, expected one of .png"),
        ("a.png", b"", "is empty"),
        ("a.png", b"not an image", "expected a PNG, JPEG, BMP, TIFF"),
    ],
)
def test_files_of_no_use(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_image(tmp_path / name)


def test_missing_files_folders_and_pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"none.png: cannot be read \(No such file or directory\)"):
        read_image(tmp_path / "none.png")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("folder.png", "pipe.png"):
        with pytest.raises(InputError, match="is not a regular file"):
            read_image(tmp_path / name)
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 10)
    write_png(tmp_path / "large.png", GRAY)
    with pytest.raises(InputError, match="bytes, expected at most 10"):
        read_image(tmp_path / "large.png")


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64])
def test_windowing_is_exact(dtype: type[np.integer[Any]]) -> None:
    info = np.iinfo(dtype)
    for low, high in ((0, 100), (-100, 27), (3, 4), (0, 2 * 255), (0, info.max)):
        low = max(low, info.min)
        values = RANDOM.integers(low, min(high, info.max), 500, dtype=dtype, endpoint=True).reshape(20, 25)
        values.flat[:2] = low, min(high, info.max)
        np.testing.assert_array_equal(to_uint8(values), windowed(values))


def test_to_uint8_keeps_uint8_and_spreads_bool() -> None:
    assert to_uint8(GRAY) is GRAY
    np.testing.assert_array_equal(to_uint8(GRAY > 99), np.where(GRAY > 99, 255, 0))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (GRAY.astype(np.float32), "got dtype float32, expected uint8"),
        (GRAY.astype(np.uint16), "to_uint8"),
        (GRAY[0], "got shape"),
        (np.dstack([COLOUR, ALPHA]), r"got shape \(20, 30, 4\)"),
        (np.zeros((0, 5), np.uint8), "got shape"),
        (np.zeros((1, 5, 5, 3), np.uint8), "got shape"),
        ([[1, 2]], "got list, expected a numpy array or a path"),
    ],
)
def test_arrays_of_no_use(image: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_image(image)


def test_arrays_of_use() -> None:
    assert check_image(GRAY) is GRAY
    assert check_image(COLOUR) is COLOUR
    assert check_image(GRAY[:, :, None]).shape == GRAY.shape


@pytest.mark.parametrize("pixels", [GRAY, COLOUR, COLOUR[::-1, ::2], np.asfortranarray(GRAY)])
def test_what_is_written_is_read_back(tmp_path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    write_png(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_jpegs_of_several_images_are_refused(tmp_path: Path) -> None:
    one = encode_jpeg(np.zeros((16, 16), np.uint8))
    with pytest.raises(InputError, match="holds two JPEG images, one behind the other, expected a single"):
        decode_image(one + one, "a.jpg")
    with pytest.raises(InputError, match="holds two JPEG images"):
        decode_image(one + bytes(100) + one, "a.jpg")
    mpf = b"\xff\xe2\x00\x08MPF\0II"
    with pytest.raises(InputError, match=r"holds several images \(MPO\)"):
        decode_image(one[:2] + mpf + one[2:], "b.jpg")
    path = tmp_path / "c.jfif"
    path.write_bytes(one)
    assert read_image(path).shape == (16, 16)


def test_small_tiles_and_damage_give_one_line_and_no_line_of_opencv(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small = encode_tiff(np.zeros((40, 40), np.uint8), tile=16)
    with pytest.raises(InputError, match=r"TIFF in tiles of 16x16, which OpenCV .* convert it to PNG"):
        decode_image(small, "a.tif")
    same(encode_tiff(GRAY, tile=16, deflated=True), GRAY)  # these OpenCV decodes
    with pytest.raises(InputError, match=r"got a '.heic' file, expected one of .* convert it to PNG"):
        read_image(tmp_path / "a.heic")
    assert capfd.readouterr() == ("", "")
