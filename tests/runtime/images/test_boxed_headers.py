"""WebP, JPEG 2000, AVIF, PNM and BigTIFF: the right pixels or one line."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.read import decode_image, oriented, to_uint8

pillow = pytest.importorskip("PIL.Image", reason="Pillow makes the files")

RANDOM = np.random.default_rng(7)
GRAY = RANDOM.integers(0, 256, (20, 30), np.uint8)
COLOUR = RANDOM.integers(0, 256, (20, 30, 3), np.uint8)
SMOOTH = cv2.GaussianBlur(COLOUR, (0, 0), 4)
ALPHA = GRAY.copy()
ALPHA[:4] = 0
WIDE = RANDOM.integers(0, 4096, (20, 30), np.uint16)
AVIF = pytest.mark.skipif(not cv2.haveImageWriter("a.avif"), reason="this OpenCV has no AVIF")


def saved(pixels: Any, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    pillow.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def exif(orientation: int) -> bytes:
    tags = pillow.Exif()
    tags[274] = orientation
    return tags.tobytes()  # type: ignore[no-any-return]


def same(data: bytes, expected: npt.NDArray[Any]) -> None:
    got = decode_image(data, "x")
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, expected)


def refused(data: bytes, why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        decode_image(data, "x")
    assert "\n" not in str(caught.value)


def test_webp_alpha_and_lossy() -> None:
    same(saved(COLOUR, "WEBP", lossless=True), COLOUR)
    same(saved(GRAY, "WEBP", lossless=True), np.dstack([GRAY] * 3))  # the format knows no gray
    same(saved(np.dstack([COLOUR, ALPHA]), "WEBP", lossless=True, exact=True), COLOUR)
    lossy = saved(SMOOTH, "WEBP", quality=90)
    same(lossy, np.asarray(pillow.open(io.BytesIO(lossy)).convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_webp_is_turned_as_its_exif_says(orientation: int) -> None:
    data = saved(COLOUR, "WEBP", lossless=True, exif=exif(orientation))
    same(data, oriented(COLOUR, orientation))


def test_animations_and_cut_files_are_refused() -> None:
    frames = [pillow.fromarray(COLOUR[::-1].copy())]
    moving = saved(COLOUR, "WEBP", save_all=True, append_images=frames, lossless=True)
    refused(moving, "holds an animation, expected a single image")
    for data in (saved(COLOUR, "WEBP"), saved(COLOUR, "JPEG2000"), saved(COLOUR, "JPEG2000", no_jp2=True)):
        for end in (1, len(data) // 9, len(data) // 2, len(data) - 3):
            refused(data[:end], "expected|cannot be decoded|does not decode")


def test_jpeg_2000_of_every_form() -> None:
    for bare in (False, True):
        same(saved(GRAY, "JPEG2000", no_jp2=bare), GRAY)
        same(saved(COLOUR, "JPEG2000", no_jp2=bare), COLOUR)
        same(saved(np.dstack([COLOUR, ALPHA]), "JPEG2000", no_jp2=bare), COLOUR)
        same(saved(WIDE, "JPEG2000", no_jp2=bare), to_uint8(WIDE))
    same(saved(np.dstack([GRAY, ALPHA]), "JPEG2000"), GRAY)
    unsaid = saved(np.dstack([GRAY, ALPHA]), "JPEG2000", no_jp2=True)
    refused(unsaid, "is a JPEG 2000 file, which OpenCV .* does not decode, or is damaged: convert it to PNG")


def test_jpeg_2000_that_opencv_gets_wrong_is_refused() -> None:
    plain = saved(COLOUR, "JPEG2000", no_jp2=True)
    sizes = plain.index(b"\xff\x51")
    for component, why in (
        (b"\x87\x01\x01", "signed values"), (b"\x03\x01\x01", "3 components of 4 bits"),
        (b"\x07\x02\x02", "subsampled components"),
    ):  # fmt: skip
        refused(plain[: sizes + 40] + component * 3 + plain[sizes + 49 :], f"a JPEG 2000 .*{why}.* to PNG")
    file = io.BytesIO()
    pillow.fromarray(SMOOTH).convert("YCbCr").save(file, "JPEG2000")
    refused(file.getvalue(), "of colour space 18")
    whole = saved(COLOUR, "JPEG2000")
    refused(whole.replace(b"colr", b"pclr"), "with a palette")
    stream = whole[whole.index(b"jp2c") - 4 :]
    refused(
        whole[: -len(stream)] + struct.pack(">I", len(stream)) + stream[4:] + stream, "several codestreams"
    )


@AVIF
def test_avif_of_every_form() -> None:
    for pixels in (GRAY, SMOOTH):
        data = saved(pixels, "AVIF", quality=90)
        shown = np.asarray(pillow.open(io.BytesIO(data)).convert("L" if pixels.ndim == 2 else "RGB"))
        same(data, shown)
    data = saved(np.dstack([SMOOTH, ALPHA]), "AVIF", quality=100)
    same(data, np.asarray(pillow.open(io.BytesIO(data)))[..., :3])
    wide = SMOOTH.astype(np.uint16) * 16
    for bits in (10, 12):
        options = [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_QUALITY, 100]
        encoded = cv2.imencode(".avif", wide >> (12 - bits), options)[1].tobytes()
        same(encoded, to_uint8(wide >> (12 - bits))[..., ::-1])


@AVIF
@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_upright_or_refused(orientation: int) -> None:
    data = saved(SMOOTH, "AVIF", quality=100, exif=exif(orientation))
    if orientation == 1:
        assert decode_image(data, "x").shape == SMOOTH.shape
    else:
        refused(data, "is an AVIF that is to be (turned|mirrored) when shown")


def test_files_of_avifs_kind_that_are_none_are_refused() -> None:
    data = saved(SMOOTH, "AVIF")
    refused(data.replace(b"avif", b"heic"), "is a file of brand 'heic', expected AVIF")
    refused(data[:8] + b"avis" + data[12:], "holds an animation")
    refused(data[:-9], "damaged or cut off")


def numbers(pixels: npt.NDArray[Any]) -> bytes:
    return " ".join(map(str, pixels.ravel())).encode()


def test_pnm_of_every_kind() -> None:
    bits = GRAY > 127
    black = np.where(bits, 0, 255)
    wide = np.dstack([WIDE, WIDE[::-1], WIDE // 2])
    same(b"P5\n# scanner\n30 20\n255\n" + GRAY.tobytes(), GRAY)
    same(b"P5 30 20 4095\n" + WIDE.astype(">u2").tobytes(), to_uint8(WIDE))
    same(b"P6\n30\t20\n255\n" + COLOUR.tobytes() + b"\n", COLOUR)
    same(b"P6 30 20 65535\n" + wide.astype(">u2").tobytes(), to_uint8(wide))
    same(b"P4\n30 20\n" + np.packbits(bits, axis=1).tobytes(), black)
    same(b"P1\n30 20\n" + numbers(bits.astype(int)), black)
    same(b"P1\n30 20\n" + numbers(bits.astype(int)).replace(b" ", b""), black)
    same(b"P2\n30 20\n255\n" + numbers(GRAY), GRAY)  # no line's end at the end
    same(b"P3\n30 20\n255\n" + numbers(COLOUR), COLOUR)
    same(b"P2\n30 20\n4095\n" + numbers(WIDE) + b"\n", to_uint8(WIDE))


def test_pnm_that_is_cut_or_holds_more_is_refused() -> None:
    one = b"P5\n30 20\n255\n" + GRAY.tobytes()
    text = b"P2\n30 20\n255\n" + numbers(GRAY)
    refused(one + one, "holds 613 values more than its header says, expected a single image")
    refused(text + b"\n" + text, "values more than its header says")
    for data in (one[:-1], text[: -len(text) // 3], b"P5\n30", b"P5\n30 20\n99999999\n"):
        refused(data, "damaged or cut off|of values up to")
    refused(b"P5\n30 20\n15\n" + bytes(600), "a PNM file of values up to 15, .* convert it to PNG")


def big_tiff(pixels: npt.NDArray[Any], order: str, orientation: int = 1, following: int = 0) -> bytes:
    """A BigTIFF of one deflated strip, uint8 or uint16 (H, W) or (H, W, 3)."""
    body = zlib.compress(pixels.astype(pixels.dtype.newbyteorder(order)).tobytes())  # type: ignore[arg-type]
    samples = 3 if pixels.ndim == 3 else 1
    bits = struct.pack(f"{order}{samples}H", *[8 * pixels.dtype.itemsize] * samples)
    entries = [
        (256, 4, 1, "I", pixels.shape[1]), (257, 4, 1, "I", pixels.shape[0]), (258, 3, samples, "", bits),
        (259, 3, 1, "H", 8), (262, 3, 1, "H", 2 if samples == 3 else 1), (273, 16, 1, "Q", 16),
        (274, 3, 1, "H", orientation), (277, 3, 1, "H", samples), (278, 4, 1, "I", pixels.shape[0]),
        (279, 16, 1, "Q", len(body)),
    ]  # fmt: skip
    directory = struct.pack(f"{order}Q", len(entries))
    for tag, kind, number, form, value in entries:
        packed = value if isinstance(value, bytes) else struct.pack(order + form, value)
        directory += struct.pack(f"{order}HHQ", tag, kind, number) + packed.ljust(8, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HHHQ", 43, 8, 0, 16 + len(body))
    return head + body + directory + struct.pack(f"{order}Q", following)


@pytest.mark.parametrize("order", ["<", ">"])
def test_big_tiffs(order: str) -> None:
    for pixels in (GRAY, COLOUR):
        same(big_tiff(pixels, order), pixels)
        same(big_tiff(pixels, order, orientation=6), oriented(pixels, 6))
    same(big_tiff(WIDE, order), to_uint8(WIDE))
    refused(big_tiff(GRAY, order, following=16), "holds more than one image")
    whole = big_tiff(GRAY, order)
    for end in range(1, len(whole) - 8, 40):
        refused(whole[:end], "expected|cannot be decoded")


@pytest.mark.fault
def test_damaged_bytes_give_pixels_or_an_input_error() -> None:
    files = [
        saved(GRAY, "WEBP"), saved(GRAY, "JPEG2000"), saved(COLOUR, "AVIF"), big_tiff(GRAY, "<"),
        b"P5\n30 20\n255\n" + GRAY.tobytes(),
    ]  # fmt: skip
    for whole in files:
        for _ in range(150):
            data = bytearray(whole)
            for at in RANDOM.integers(0, min(len(data), 300), 3):
                data[at] = RANDOM.integers(256)
            try:
                pixels = decode_image(bytes(data), "x")
            except InputError:
                continue
            assert pixels.dtype == np.uint8
