"""Look-up tables from their bytes: descriptors, words, bytes, signs, byte orders, segments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.frames import read_frame

pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

Write = Callable[..., Path]
Array = npt.NDArray[Any]
STORED = np.array([[0, 1, 2, 3]], np.uint16)


def table(entries: list[int], bits: int, *, first: int = 0, data: bytes | None = None) -> Dataset:
    """A VOI table; data: its bytes, None for a word per entry."""
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.LUTData = np.array(entries, "<u2").tobytes() if data is None else data
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW"
    return item


def voi(write: Write, path: Path, item: Dataset, stored: Array = STORED, **elements: Any) -> list[int]:
    pixels: list[int] = read_frame(write(path, stored, VOILUTSequence=[item], **elements)).pixels[0].tolist()
    return pixels


def test_8_bit_entries_in_words_and_in_bytes(write: Write, tmp_path: Path) -> None:
    entries = [255, 0, 9, 100]
    assert voi(write, tmp_path / "a.dcm", table(entries, 8)) == entries
    assert voi(write, tmp_path / "b.dcm", table(entries, 8, data=bytes(entries))) == entries
    odd = table([7, 8, 9], 8, data=bytes([7, 8, 9, 0]))
    assert voi(write, tmp_path / "c.dcm", odd) == [7, 8, 9, 9]


def test_a_negative_first_value_written_as_unsigned(write: Write, tmp_path: Path) -> None:
    item = table([0, 100, 200, 255], 8, first=2**16 - 2)
    signed = np.array([[-9, -2, -1, 0, 1, 2]], np.int16)
    assert voi(write, tmp_path / "a.dcm", item, signed) == [0, 0, 100, 200, 255, 255]
    only_positive = np.array([[0, 1]], np.int16)  # the header decides, not what a frame happens to hold
    assert voi(write, tmp_path / "b.dcm", item, only_positive) == [200, 255]
    rescaled = voi(write, tmp_path / "c.dcm", item, STORED, RescaleSlope=1, RescaleIntercept=-2)
    assert rescaled == [0, 100, 200, 255]
    high = table([0, 255], 8, first=2**16 - 2)  # unsigned values: as it is written
    assert voi(write, tmp_path / "d.dcm", high, np.array([[0, 65534, 65535]], np.uint16)) == [0, 0, 255]


def test_bits_are_reconciled_with_the_entries(write: Write, tmp_path: Path) -> None:
    assert voi(write, tmp_path / "a.dcm", table([0, 4095, 819, 1638], 16)) == [0, 255, 51, 102]
    assert voi(write, tmp_path / "b.dcm", table([0, 65535, 13107, 0], 12)) == [0, 255, 51, 0]
    assert voi(write, tmp_path / "c.dcm", table([0, 2047, 0, 0], 12)) == [
        0,
        127,
        0,
        0,
    ]  # 12 bits can be meant


def test_tables_in_other_encodings(write: Write, tmp_path: Path) -> None:
    entries = [4095, 0, 2048, 1024]
    expected = np.rint(np.array(entries) * 255 / 4095).tolist()
    item = table(entries, 12)
    assert voi(write, tmp_path / "a.dcm", item, syntax=ImplicitVRLittleEndian) == expected
    item.LUTData = np.array(entries, ">u2").tobytes()
    big = STORED.astype(">u2")
    assert voi(write, tmp_path / "b.dcm", item, big, syntax=ExplicitVRBigEndian) == expected


def test_a_table_that_does_not_fit_its_descriptor_is_refused(write: Write, tmp_path: Path) -> None:
    item = table([1, 2, 3, 4], 8, data=bytes(12))
    with pytest.raises(InputError, match="12 bytes in LUTData, expected 4 or 8, as LUTDescriptor says"):
        voi(write, tmp_path / "a.dcm", item)
    del item.LUTData
    with pytest.raises(InputError, match="lacks LUTDescriptor or LUTData"):
        voi(write, tmp_path / "b.dcm", item)


def coloured(write: Write, path: Path, data: bytes, bits: int, count: int, kind: str = "") -> Array:
    """A row of pixels 0..count-1 through a palette whose three colours have the same data."""
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in ("Red", "Green", "Blue"):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [count, 0, bits]
        elements[f"{kind}{name}PaletteColorLookupTableData"] = data
    pixels = read_frame(write(path, np.arange(count, dtype=np.uint8)[None], **elements)).pixels
    assert (pixels == pixels[..., :1]).all()
    return pixels[0, :, 0]


def test_palettes_of_bytes_words_and_segments(write: Write, tmp_path: Path) -> None:
    entries = [0, 10, 200, 255]
    words = np.array(entries, "<u2").tobytes()
    for number, (data, bits) in enumerate(((bytes(entries), 8), (words, 8), (words, 16))):
        pixels = coloured(write, tmp_path / f"{number}.dcm", data, bits, 4)
        assert pixels.tolist() == entries
    # two discrete entries, three on the way to 40, then the first segment again
    segments = [0, 2, 5, 10, 1, 3, 40, 2, 1]
    expected = [5, 10, 20, 30, 40, 5, 10]
    as_bytes = bytes([*segments, 0, 0, 0, 0])
    pixels = coloured(write, tmp_path / "s8.dcm", as_bytes + b"\0", 8, 7, "Segmented")
    assert pixels.tolist() == expected
    as_words = np.array([*segments, 0, 0], "<u2").tobytes()
    pixels = coloured(write, tmp_path / "s16.dcm", as_words, 16, 7, "Segmented")
    assert pixels.tolist() == expected
    with pytest.raises(InputError, match="segmented palette that does not give its 9 entries"):
        coloured(write, tmp_path / "bad.dcm", as_words, 16, 9, "Segmented")
