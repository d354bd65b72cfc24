from __future__ import annotations

import struct
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.header import read_header
from tumorseg_runtime.images.read import decode_image

Encoder = Callable[..., bytes]
GRAY = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)


def encode(suffix: str, pixels: np.ndarray) -> bytes:
    ok, data = cv2.imencode(suffix, pixels)
    assert ok
    return data.tobytes()


def jpeg_of_size(height: int, width: int) -> bytes:
    data = encode(".jpg", GRAY)
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def bmp_of_size(height: int, width: int) -> bytes:
    data = encode(".bmp", GRAY)
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("pixels", [GRAY, COLOUR], ids=["gray", "colour"])
def test_size_and_kind(suffix: str, pixels: np.ndarray) -> None:
    header = read_header(encode(suffix, pixels), "x")
    assert (header.height, header.width, header.bits) == (20, 30, 8)
    assert header.kind == {".png": "png", ".jpg": "jpeg", ".bmp": "bmp", ".tif": "tiff"}[suffix]
    if suffix != ".bmp":
        assert header.gray == (pixels.ndim == 2)


def test_bombs_are_refused_before_anything_is_decoded(
    encode_png: Encoder, encode_tiff: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        pytest.fail("the file was decoded before its size was judged")

    monkeypatch.setattr(cv2, "imdecode", never)
    bombs = {
        "png": encode_png(20_000, 20_000, 8, 0, [bytes(20_000)]),
        "jpeg": jpeg_of_size(60_000, 60_000),
        "bmp": bmp_of_size(-30_000, 30_000),
        "tiff": encode_tiff(GRAY, 1, size=(40_000, 40_000)),
        "big-endian tiff": encode_tiff(GRAY, 1, size=(40_000, 40_000), order=">"),
    }
    for name, data in bombs.items():
        assert len(data) < 5000
        with pytest.raises(InputError, match=f"{name}: has .* pixels, expected at most 100000000"):
            decode_image(data, name)


def test_a_size_of_nothing_is_refused(encode_png: Encoder) -> None:
    for data in (encode_png(0, 10, 8, 0, [b""]), jpeg_of_size(0, 30), bmp_of_size(0, 30)):
        with pytest.raises(InputError, match="expected at least 1x1"):
            read_header(data, "x")


def test_other_kinds_are_refused_whatever_their_name() -> None:
    for data in (b"GIF89a", b"RIFF....WAVE", b"\0" * 200, b"%PDF", b"P7\nWIDTH 1", b"Pf\n", b"x"):
        with pytest.raises(InputError, match=r"expected a PNG, JPEG, .* or PNM file: convert it to PNG"):
            read_header(data, "scan.png")


def test_several_images_in_one_file_are_refused(encode_png: Encoder, encode_tiff: Encoder) -> None:
    animation = encode_png(30, 20, 8, 0, [row.tobytes() for row in GRAY], (b"acTL" + bytes(8),))
    with pytest.raises(InputError, match="holds an animation, expected a single image"):
        read_header(animation, "x")
    with pytest.raises(InputError, match="holds more than one image"):
        read_header(encode_tiff(GRAY, 1, next_directory=8), "x")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_cut_files_are_refused_by_name(suffix: str) -> None:
    data = encode(suffix, COLOUR)
    for end in range(1, len(data) - 1, max(1, len(data) // 60)):
        with pytest.raises(InputError, match=r"cut\.png: .*(expected|cannot be decoded)"):
            decode_image(data[:end], "cut.png")


def test_a_jpeg_without_its_end_is_refused() -> None:
    data = encode(".jpg", COLOUR)
    with pytest.raises(InputError, match="no end-of-image mark"):
        read_header(data[:-2], "x")
    assert read_header(data + b"some bytes after the end", "x").width == 30


@pytest.mark.fault
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_damaged_bytes_give_pixels_or_an_input_error(suffix: str) -> None:
    whole = encode(suffix, GRAY)
    random = np.random.default_rng(3)
    for _ in range(400):
        data = bytearray(whole)
        for at in random.integers(0, min(len(data), 300), 3):
            data[at] = random.integers(256)
        try:
            pixels = decode_image(bytes(data), "x")
        except InputError:
            continue
        assert pixels.dtype == np.uint8


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiffs_that_opencv_gets_wrong_are_refused(encode_tiff: Encoder, order: str) -> None:
    wide = COLOUR.astype(np.uint16) * 257
    wrong = {
        "separate planes": encode_tiff(wide, 2, planes=2, order=order),
        "0 is white": encode_tiff(wide[:, :, 0], 0, order=order),
        "2 samples": encode_tiff(wide[:, :, :2], 1, extra=2, order=order),
        "photometric interpretation 8": encode_tiff(COLOUR, 8, order=order),
    }
    for reason, data in wrong.items():
        with pytest.raises(InputError, match=f"{reason}.*convert it to PNG"):
            decode_image(data, "x")
