"""From stored values to pixels: windows, tables, colours, frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.dicom.lookup_tables import window
from tumorseg_runtime.images.frames import read_frame, read_frames

pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

Array = npt.NDArray[Any]
Write = Callable[..., Path]


def spread(values: Array) -> Array:
    values = values.astype(np.float64)
    return (values - values.min()) / np.ptp(values) * 255


def test_8_bit_gray_stays_as_it_is_and_monochrome1_is_inverted(write: Write, tmp_path: Path) -> None:
    stored = np.arange(60, 120, dtype=np.uint8).reshape(6, 10)
    np.testing.assert_array_equal(read_frame(write(tmp_path / "a.dcm", stored)).pixels, stored)
    inverted = read_frame(write(tmp_path / "b.dcm", stored, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(inverted.pixels, 255 - stored)
    few = read_frame(write(tmp_path / "c.dcm", stored // 8, BitsStored=4, HighBit=3))
    np.testing.assert_array_equal(few.pixels, stored // 8 * 17)


def test_wide_values_without_a_window_go_from_minimum_to_maximum(write: Write, tmp_path: Path) -> None:
    stored = np.array([[-500, 0], [1500, -2000]], np.int16)
    np.testing.assert_array_equal(
        read_frame(write(tmp_path / "a.dcm", stored)).pixels, np.rint(spread(stored)).astype(np.uint8)
    )
    padded = read_frame(write(tmp_path / "b.dcm", stored, PixelPaddingValue=-2000))
    np.testing.assert_array_equal(padded.pixels, [[0, 64], [255, 0]])
    limits = {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -400}
    np.testing.assert_array_equal(
        read_frame(write(tmp_path / "c.dcm", stored, **limits)).pixels, [[0, 0], [255, 0]]
    )
    assert not read_frame(write(tmp_path / "d.dcm", np.full((4, 4), 9, np.uint16))).pixels.any()


def test_rescale_then_window(write: Write, tmp_path: Path) -> None:
    stored = np.array([[0, 100, 150, 200, 1000]], np.uint16)
    facts: dict[str, Any] = {
        "RescaleSlope": 2,
        "RescaleIntercept": -100,
        "WindowCenter": 200,
        "WindowWidth": 201,
    }
    pixels = read_frame(write(tmp_path / "a.dcm", stored, **facts)).pixels
    # values -100, 100, 200, 300, 1900 in a window from 99.5 - 0 to 299.5
    expected = np.rint(np.clip((np.array([-100, 100, 200, 300, 1900]) - 199.5) / 200 + 0.5, 0, 1) * 255)
    np.testing.assert_array_equal(pixels[0], expected)
    several = read_frame(
        write(tmp_path / "b.dcm", stored, **{**facts, "WindowCenter": [200, 7], "WindowWidth": [201, 9]})
    )
    np.testing.assert_array_equal(several.pixels, pixels)  # the first window counts


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_equal_pydicoms(function: str) -> None:
    from pydicom.pixels.processing import apply_windowing

    values = np.linspace(-100, 300, 401)
    dataset = Dataset()
    dataset.PhotometricInterpretation, dataset.BitsStored, dataset.PixelRepresentation = "MONOCHROME2", 12, 0
    for centre, width in (
        ((40, 400), (100.5, 1), (200, 2.5)) if function != "SIGMOID" else ((40, 90), (9, 30))
    ):
        dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = centre, width, function
        theirs = apply_windowing(values, dataset) / 4095
        np.testing.assert_allclose(window(values, centre, width, function), theirs, atol=1e-12)


def test_a_voi_table_and_a_modality_table(write: Write, tmp_path: Path) -> None:
    stored = np.array([[0, 1, 2, 3]], np.uint16)
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4, 0, 12], [4095, 0, 2048, 1024]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    voi = read_frame(write(tmp_path / "a.dcm", stored, VOILUTSequence=[table]))
    np.testing.assert_array_equal(voi.pixels[0], np.rint(np.array([4095, 0, 2048, 1024]) * 255 / 4095))
    table.ModalityLUTType = "US"
    table.LUTDescriptor = [4, 0, 16]
    modality = read_frame(write(tmp_path / "b.dcm", stored, ModalityLUTSequence=[table]))
    np.testing.assert_array_equal(modality.pixels[0], np.rint(spread(np.array([4095, 0, 2048, 1024]))))


def test_colour_and_palette(write: Write, tmp_path: Path) -> None:
    stored = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    np.testing.assert_array_equal(read_frame(write(tmp_path / "a.dcm", stored)).pixels, stored)
    wide = stored.astype(np.uint16) * 500
    np.testing.assert_array_equal(read_frame(write(tmp_path / "b.dcm", wide)).pixels, np.rint(spread(wide)))
    palette: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    colours = {"Red": [0, 65535], "Green": [65535, 0], "Blue": [257 * 100, 257 * 200]}
    for name, values in colours.items():
        palette[f"{name}PaletteColorLookupTableDescriptor"] = [2, 0, 16]
        palette[f"{name}PaletteColorLookupTableData"] = np.array(values, np.uint16).tobytes()
    pixels = read_frame(write(tmp_path / "c.dcm", np.array([[0, 1]], np.uint8), **palette)).pixels
    np.testing.assert_array_equal(pixels, [[[0, 255, 100], [255, 0, 200]]])


def test_every_frame_is_an_image_and_read_frame_wants_one(write: Write, tmp_path: Path) -> None:
    stored = np.arange(3 * 8, dtype=np.uint8).reshape(3, 2, 4)
    for syntax in (ExplicitVRLittleEndian, RLELossless):
        path = write(tmp_path / "clip.dcm", stored, syntax=syntax)
        frames = list(read_frames(path))
        assert [frame.name for frame in frames] == [f"{path}[{i}]" for i in range(3)]
        assert [(frame.index, frame.count) for frame in frames] == [(0, 3), (1, 3), (2, 3)]
        for frame, values in zip(frames, stored, strict=True):
            np.testing.assert_array_equal(frame.pixels, values)
        with pytest.raises(InputError, match="holds 3 frames, expected one: pass each"):
            read_frame(path)


def test_groups_of_an_enhanced_file_frame_by_frame(write: Write, tmp_path: Path) -> None:
    def group(slope: float, spacing: float | None) -> Dataset:
        item, rescale = Dataset(), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept = slope, 0
        item.PixelValueTransformationSequence = [rescale]
        if spacing:
            measures = Dataset()
            measures.PixelSpacing = [spacing, spacing]
            item.PixelMeasuresSequence = [measures]
        return item

    shared, voi = group(1, 0.7), Dataset()
    voi.WindowCenter, voi.WindowWidth = 100.5, 201
    shared.FrameVOILUTSequence = [voi]
    stored = np.full((2, 2, 2), 50, np.uint16)
    path = write(
        tmp_path / "a.dcm",
        stored,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=[group(2, None), group(3, 0.3)],
    )
    first, second = read_frames(path)
    assert (first.pixels == np.rint(100 / 200 * 255)).all()
    assert (second.pixels == np.rint(150 / 200 * 255)).all()
    assert (first.spacings[0].row_mm, second.spacings[0].row_mm) == (0.7, 0.3)


def test_the_highest_bit_says_where_the_value_lies(write: Write, tmp_path: Path) -> None:
    values = np.array([[0, 100, 2000, 4095]], np.uint16)
    facts: dict[str, Any] = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096}
    low = read_frame(write(tmp_path / "a.dcm", values | 0xA000, HighBit=11, **facts)).pixels  # an overlay
    high = read_frame(write(tmp_path / "b.dcm", values << 4 | 5, HighBit=15, **facts)).pixels
    np.testing.assert_array_equal(low, np.rint(values / 4095 * 255))
    np.testing.assert_array_equal(high, low)
    signed = (values.astype(np.int16) - 2048) * 16
    facts |= {"WindowCenter": 0, "HighBit": 15}
    np.testing.assert_array_equal(read_frame(write(tmp_path / "c.dcm", signed, **facts)).pixels, low)


def test_padding_is_black_under_monochrome1(write: Write, tmp_path: Path) -> None:
    stored = np.array([[0, 100, 300, 500]], np.uint16)
    facts: dict[str, Any] = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 0}
    np.testing.assert_array_equal(
        read_frame(write(tmp_path / "a.dcm", stored, **facts)).pixels, [[0, 255, 127, 0]]
    )


@pytest.mark.parametrize(
    ("elements", "warning"),
    [
        ({"WindowCenter": 5, "WindowWidth": 0}, "window 5.0, 0.0 (LINEAR) cannot be applied"),
        ({"WindowCenter": 5, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"}, "(SIGMOID) cannot be applied"),
        ({"WindowCenter": 5, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "(CUBIC) cannot be applied"),
        ({"PixelSpacing": [0, 1]}, "PixelSpacing is 0.0x1.0, expected two positive numbers: no millimetres"),
        ({"ImagerPixelSpacing": [1]}, "ImagerPixelSpacing is 1.0, expected two positive numbers"),
        ({"SequenceOfUltrasoundRegions": [Dataset()]}, "1 of 1 ultrasound regions lack usable numbers"),
    ],
)
def test_what_cannot_be_meant_costs_the_window_or_the_millimetres(
    write: Write, tmp_path: Path, elements: dict[str, Any], warning: str
) -> None:
    stored = np.arange(20, dtype=np.uint16).reshape(4, 5)
    frame = read_frame(write(tmp_path / "a.dcm", stored, **elements))
    np.testing.assert_array_equal(frame.pixels, np.rint(spread(stored)))
    assert frame.spacings == ()
    assert len(frame.warnings) == 1
    assert warning in frame.warnings[0]
    assert read_frame(write(tmp_path / "b.dcm", stored)).warnings == ()
