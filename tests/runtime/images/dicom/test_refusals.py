"""What is not decoded, and what is not even read: limits, damage, patient data."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.dicom import read as dicom_module
from tumorseg_runtime.images.dicom.checks import check_stream, frames_of
from tumorseg_runtime.images.frame import Frame
from tumorseg_runtime.images.frames import read_frame, read_frames

pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")

from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

Write = Callable[..., Path]
Decode = Callable[[Path], list[Frame]]


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, "RescaleSlope 0"),
        ({"HighBit": 11}, "says 16 bits stored of 16 allocated, the highest 11, expected 15"),
        ({"BitsStored": 17, "HighBit": 16}, "says 17 bits stored of 16 allocated"),
        ({"Rows": 0}, "1 frames of 5x0 pixels"),
        ({"Rows": 7}, "frame .0. cannot be decoded"),
        ({"Rows": 2}, "holds 2 frames, its header says 1"),
        ({"Rows": None}, "header cannot be decoded"),
        ({"NumberOfFrames": 0}, "0 frames of 5x4 pixels"),
        ({"NumberOfFrames": 3}, "cannot be decoded"),
        ({"PixelData": None}, "holds no pixels"),
        ({"PhotometricInterpretation": "CMYK"}, "is CMYK with 1 samples per pixel, expected one of"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "lacks RedPalette.*Descriptor or "),
    ],
)
def test_what_cannot_be_decoded_rightly_is_refused(
    decode: Decode, write: Write, elements: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.dcm", np.arange(20, dtype=np.uint16).reshape(4, 5), **elements)
    with pytest.raises(InputError, match=message) as caught:
        decode(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_limits_are_judged_before_decoding(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = np.zeros((40, 50), np.uint8)
    huge = write(tmp_path / "a.dcm", stored, Rows=60000, Columns=60000)
    with pytest.raises(InputError, match="1 frames of 60000x60000 pixels, expected at most 100000000 in one"):
        read_frame(huge)
    long = write(tmp_path / "b.dcm", stored, Rows=5000, Columns=5000, NumberOfFrames=1000)
    with pytest.raises(InputError, match=r"1000 frames of 5000x5000 pixels, .* 2000000000 in all"):
        read_frame(long)
    monkeypatch.setattr(dicom_module, "MAX_FILE_BYTES", 1000)
    with pytest.raises(InputError, match="bytes, expected at most 1000"):
        read_frame(write(tmp_path / "c.dcm", stored))


def test_a_deflated_file_is_read_and_a_deflated_bomb_is_not(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = np.zeros((400, 500), np.uint8)
    path = write(tmp_path / "a.dcm", stored, syntax=DeflatedExplicitVRLittleEndian)
    np.testing.assert_array_equal(read_frame(path).pixels, stored)
    assert path.stat().st_size < 5000
    monkeypatch.setattr(dicom_module, "MAX_FILE_BYTES", 100_000)
    with pytest.raises(InputError, match="inflates beyond 100000 bytes"):
        read_frame(path)
    data = path.read_bytes()
    (tmp_path / "b.dcm").write_bytes(data[:-200] + b"\xff" * 200)
    with pytest.raises(InputError, match=r"cannot be decoded .*decompress"):
        read_frame(tmp_path / "b.dcm")


def jpeg(height: int, width: int, marker: int = 0xC0, predictor: int = 0) -> bytes:
    frame = struct.pack(">BBHBHHB", 0xFF, marker, 11, 8, height, width, 1) + b"\x01\x11\x00"
    scan = b"\xff\xda\x00\x08\x01\x01\x00" + bytes([predictor, 0, 0])
    return b"\xff\xd8\xff\xff" + frame[1:] + scan + b"\xff\xd9"


def test_a_compressed_frame_that_contradicts_its_file_is_not_decoded() -> None:
    dataset = Dataset()
    dataset.Rows, dataset.Columns, dataset.PixelRepresentation = 4, 5, 0
    dataset.SamplesPerPixel, dataset.BitsAllocated, dataset.BitsStored = 1, 16, 8
    assert check_stream(jpeg(4, 5, 0xC2), dataset) == jpeg(4, 5, 0xC2)
    assert check_stream(b"\0rle", dataset) == b"\0rle"
    mended = check_stream(jpeg(4, 5, 0xC1), dataset)  # a scan of coefficients 0..0 where all are meant
    assert mended == jpeg(4, 5, 0xC1).replace(b"\0\0\0\xff\xd9", b"\0\x3f\0\xff\xd9")
    with pytest.raises(InputError, match="without an end mark"):
        check_stream(jpeg(4, 5)[:-2], dataset)
    dataset.BitsAllocated = 4
    with pytest.raises(InputError, match="1 samples of 8 bits, its header says 1 of at most 4"):
        check_stream(jpeg(4, 5), dataset)
    dataset.BitsAllocated, dataset.SamplesPerPixel = 16, 3
    with pytest.raises(InputError, match="1 samples of 8 bits, its header says 3"):
        check_stream(jpeg(4, 5), dataset)
    dataset.SamplesPerPixel = 1
    with pytest.raises(InputError, match="compressed frame of 60000x60000 pixels, its header says 5x4"):
        check_stream(jpeg(60000, 60000), dataset)
    with pytest.raises(InputError, match="without a header"):
        check_stream(b"\xff\xd8\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00", dataset)
    check_stream(jpeg(4, 5, 0xC3, 6), dataset)
    dataset.PixelRepresentation = 1
    check_stream(jpeg(4, 5, 0xC3, 1), dataset)
    with pytest.raises(InputError, match="predictor 6"):
        check_stream(jpeg(4, 5, 0xC3, 6), dataset)
    dataset.BitsStored = 12
    with pytest.raises(InputError, match="8 bits, its header says signed values of 12"):
        check_stream(jpeg(4, 5, 0xC3, 1), dataset)


def test_compressed_frames_are_counted_by_their_marks(write: Write, decode: Decode, tmp_path: Path) -> None:
    clip = np.arange(3 * 20, dtype=np.uint8).reshape(3, 4, 5)
    untold = write(tmp_path / "a.dcm", clip, syntax=RLELossless, NumberOfFrames=None)
    assert [frame.count for frame in decode(untold)] == [3, 3, 3]
    with pytest.raises(InputError, match="holds 3 frames, its header says 2"):
        decode(write(tmp_path / "b.dcm", clip, syntax=RLELossless, NumberOfFrames=2))
    half = jpeg(4, 5)
    items = [b"", half[:9], half[9:], half]
    data = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    assert frames_of(data, whole_fragments=False) == [half, half]
    assert len(frames_of(data, whole_fragments=True)) == 3
    with pytest.raises(InputError, match="cut off"):
        frames_of(data[:-1], whole_fragments=False)


def test_cut_off_and_flipped_files_give_one_line_or_pixels(
    decode: Decode, write: Write, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.dcm", np.arange(3000, dtype=np.uint16).reshape(50, 60), syntax=RLELossless)
    data = path.read_bytes()
    random = np.random.default_rng(5)
    refused = []
    for _ in range(120):
        broken = bytearray(data[: random.integers(1, len(data))] if random.random() < 0.4 else data)
        for at in random.integers(0, len(broken), 3):
            broken[at] ^= 1 << int(random.integers(8))
        path.write_bytes(bytes(broken))
        try:
            frames = decode(path)
        except InputError as error:
            refused.append(str(error))
        else:
            assert all(frame.pixels.dtype == np.uint8 for frame in frames)
    assert len(refused) > 20
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in refused)


def test_nothing_of_the_patient_is_read(
    patient: dict[str, str], write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.dcm", np.zeros((4, 5), np.uint8))
    assert patient["PatientName"].encode() in path.read_bytes()
    seen = dicom_module._read(path)
    assert {element.keyword for element in seen} <= {*dicom_module._TAGS, "SpecificCharacterSet"}
    assert not any(value in str(seen) for value in patient.values())


@pytest.mark.fault
@pytest.mark.parametrize("tag", [b"\x08\x00\x16\x00", b"\x08\x00\x60\x00"])
def test_an_unknown_value_representation_of_class_or_modality_is_one_line(
    write: Write, tmp_path: Path, tag: bytes
) -> None:
    path = write(tmp_path / "x.dcm", np.zeros((8, 8), np.uint8), Modality="OT")
    data = bytearray(path.read_bytes())
    data[(at := data.index(tag, 132)) + 4 : at + 6] = b"\x55\xf3"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"x\.dcm: header cannot be decoded"):
        list(read_frames(path))
