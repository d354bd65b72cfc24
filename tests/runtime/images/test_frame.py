from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.images.frames import is_dicom, read_frame, read_frames
from tumorseg_runtime.images.read import write_png


def test_a_plain_image_is_one_frame(tmp_path: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    write_png(tmp_path / "a.png", pixels)
    (frame,) = read_frames(str(tmp_path / "a.png"))
    assert (frame.name, frame.spacings, frame.index, frame.count) == (str(tmp_path / "a.png"), (), 0, 1)
    np.testing.assert_array_equal(frame.pixels, pixels)
    np.testing.assert_array_equal(read_frame(tmp_path / "a.png").pixels, pixels)


def test_files_are_told_apart_by_name_then_by_content(tmp_path: Path) -> None:
    dicom, other = bytes(128) + b"DICM", bytes(128) + b"PNG "
    for name, content, expected in (
        ("a.dcm", other, True),
        ("A.DICOM", other, True),
        ("a", dicom, True),
        ("1.2.840.113619.2", dicom, True),
        ("b", other, False),
        ("b.55", other, False),
        ("short", b"DICM", False),
        ("a.png", dicom, False),
        ("a.txt", dicom, False),
    ):
        (tmp_path / name).write_bytes(content)
        assert is_dicom(tmp_path / name) is expected, name
    assert not is_dicom(tmp_path / "gone")
    assert is_dicom(tmp_path / "gone.dcm")
    assert not is_dicom(tmp_path)


def test_an_error_comes_when_the_frame_is_asked_for(tmp_path: Path) -> None:
    for name in ("gone.png", "gone"):
        frames = read_frames(tmp_path / name)
        with pytest.raises(InputError, match=name):
            next(frames)


def test_without_pydicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.dcm").write_bytes(b"")
    for name in [name for name in sys.modules if name.partition(".")[0] == "pydicom"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pydicom", None)  # type: ignore[arg-type]
    with pytest.raises(BackendError, match=r"pydicom is not installed.*pip install 'tumorseg\[dicom\]'"):
        read_frame(tmp_path / "a.dcm")
