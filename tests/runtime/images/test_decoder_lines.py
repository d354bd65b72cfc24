"""Lines that decoders write to standard error by themselves."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from tumorseg_runtime.conformance.file_formats import encode_jpeg, encode_png
from tumorseg_runtime.images import decoder_lines
from tumorseg_runtime.images.frames import read_frame

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def broken_jpeg(path: Path) -> Path:
    """Its data ends in the middle, and goes on behind."""
    data = bytearray(encode_jpeg(NOISE))
    data[len(data) // 2 : len(data) // 2 + 2] = b"\xff\xd9"
    path.write_bytes(data)
    return path


def test_libjpegs_line_becomes_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = broken_jpeg(tmp_path / "a.jpg")
    with decoder_lines.owned():
        frame = read_frame(path)
    assert capfd.readouterr() == ("", "")
    (warning,) = frame.warnings
    assert warning.startswith("may be damaged, libjpeg says: Corrupt JPEG data: premature end")
    read_frame(path)  # a library leaves the process's standard error alone
    assert "Corrupt JPEG data" in capfd.readouterr().err


def test_libpngs_line_on_a_profile_is_dropped(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    body = b"iCCPx\0\0" + zlib.compress(b"abc")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    whole = encode_png(NOISE)
    path = tmp_path / "a.png"
    path.write_bytes(whole[:33] + chunk + whole[33:])
    with decoder_lines.owned():
        assert read_frame(path).warnings == ()
    assert capfd.readouterr() == ("", "")


def test_what_others_write_meanwhile_is_passed_on(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with decoder_lines.owned(), decoder_lines.caught() as damage:
        os.write(2, b"a driver's line\nCorrupt JPEG data: x\nlibpng warning: y\n")
    assert capfd.readouterr().err == "a driver's line\n"
    assert damage == ["may be damaged, libjpeg says: Corrupt JPEG data: x"]


def test_opencv_is_silent_in_either_version() -> None:
    level = cv2.getLogLevel() if hasattr(cv2, "getLogLevel") else cv2.utils.logging.getLogLevel()
    assert level == 0
