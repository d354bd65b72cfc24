"""DICOM files made here, and every file of the shared collection against pydicom's own functions."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from tumorseg_runtime import Segmenter  # noqa: E402
from tumorseg_runtime import dicom as dicom_module  # noqa: E402
from tumorseg_runtime.dicom_window import window  # noqa: E402
from tumorseg_runtime.errors import InputError  # noqa: E402
from tumorseg_runtime.frames import Frame, read_frame, read_frames  # noqa: E402
from tumorseg_runtime.spacing import Spacing  # noqa: E402

Array = npt.NDArray[Any]
SHARED = Path(os.environ.get("TUMORSEG_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "dicom"
FILES = sorted(path.relative_to(SHARED).as_posix() for path in SHARED.glob("*/*.dcm"))

# Why a file of the collection is refused. All others must be decoded.
REFUSED = {
    "ExplVR_BigEndNoMeta.dcm": "lacks the mark of a DICOM file",
    "ExplVR_LitEndNoMeta.dcm": "lacks the mark of a DICOM file",
    "no_meta.dcm": "lacks the mark of a DICOM file",
    "meta_missing_tsyntax.dcm": "does not say its transfer syntax",
    "empty_charset_LEI.dcm": "holds no pixels",
    "no_meta_group_length.dcm": "holds no pixels",
    "badVR.dcm": "header cannot be decoded .*'1A'",
    "MR_truncated.dcm": "less than expected .8130 vs 8192 bytes.",
    "JPEG-lossy.dcm": "misplaced marker segment",
    "RG2_JPLY.dcm": "misplaced marker segment",
    "JPEG2000-embedded-sequence-delimiter.dcm": "compressed frame of 3722445056x1024 pixels",
    "JPEGLossless_1s_1f_i_16_16_bad.dcm": "signed values with predictor 6",
    "TOSHIBA_J2K_SIZ1_PixRep0.dcm": "JPEG 2000 of signed values, its header says unsigned",
}
PATIENT = {
    "PatientName": "Mustermann^Erika",
    "PatientID": "ID-4711-XYZ",
    "PatientBirthDate": "19640812",
    "ReferringPhysicianName": "Quacksalber^Otto",
    "AccessionNumber": "ACC0815",
    "InstitutionName": "Klinik am Waldrand",
    "StudyDescription": "Secret Study",
}


def write(path: Path, stored: Array, *, syntax: Any = ExplicitVRLittleEndian, **elements: Any) -> Path:
    """A file of stored values (H, W), (H, W, 3) or (F, H, W), with patient data; `elements` are set last,
    and removed where None."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for name, value in PATIENT.items():
        setattr(dataset, name, value)
    colour = stored.ndim == 3 and stored.shape[-1] == 3
    if stored.ndim == 3 and not colour:
        dataset.NumberOfFrames = len(stored)
    dataset.Rows, dataset.Columns = stored.shape[-3:-1] if colour else stored.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    bits = stored.dtype.itemsize * 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    for name, value in elements.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    if syntax == RLELossless:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(RLELossless, encoding_plugin="pydicom")
    dataset.save_as(path, enforce_file_format=True)
    return path


def decode(path: Path) -> list[Frame]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's remarks on files that are broken on purpose
        return list(read_frames(path))


def reference(path: Path) -> list[Array]:
    """Every frame by pydicom's own functions, scaled to 0..255 as float64."""
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut, apply_windowing

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path)
        pixels = dataset.pixel_array
        kind = dataset.PhotometricInterpretation
        frames = pixels if dataset.get("NumberOfFrames", 1) > 1 else pixels[None]
        out = []
        for frame in frames:
            if kind == "PALETTE COLOR":
                table = apply_color_lut(frame, dataset)
                out.append(table * (255 / np.iinfo(table.dtype).max))
            elif dataset.SamplesPerPixel == 3:
                out.append(frame if frame.dtype == np.uint8 else spread(frame))
            else:
                values = apply_modality_lut(frame, dataset)
                if "WindowCenter" in dataset:
                    low, high = apply_windowing(np.array([-1e9, 1e9]), dataset)
                    gray = (apply_voi_lut(values, dataset) - low) / (high - low) * 255
                elif frame.dtype == np.uint8 and "RescaleSlope" not in dataset:
                    gray = frame * (255 / (2**dataset.BitsStored - 1))
                else:
                    padding = frame == dataset.get("PixelPaddingValue", 10**9)
                    inside = values[~padding]
                    gray = np.where(padding, 0, (values - inside.min()) / np.ptp(inside) * 255)
                out.append(255 - gray if kind == "MONOCHROME1" else gray)
    return [np.asarray(frame, np.float64) for frame in out]


def spread(values: Array) -> Array:
    values = values.astype(np.float64)
    return (values - values.min()) / np.ptp(values) * 255


@pytest.mark.skipif(not FILES, reason="the shared DICOM files are not there (set TUMORSEG_SHARED)")
@pytest.mark.parametrize("name", FILES)
def test_every_shared_file_is_decoded_as_pydicom_does_or_refused_with_the_reason(name: str) -> None:
    pytest.importorskip("openjpeg")
    path = SHARED / name
    if path.name in REFUSED:
        with pytest.raises(InputError, match=REFUSED[path.name]) as caught:
            decode(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
        return
    frames, expected = decode(path), reference(path)
    assert len(frames) == len(expected)
    for index, (frame, values) in enumerate(zip(frames, expected, strict=True)):
        assert frame.pixels.dtype == np.uint8
        assert frame.pixels.flags.c_contiguous
        assert frame.pixels.shape == values.shape
        assert (frame.index, frame.count) == (index, len(frames))
        assert frame.name == (str(path) if len(frames) == 1 else f"{path}[{index}]")
        assert np.abs(frame.pixels - values).max() <= 0.51  # rounding is the only difference


def test_the_shared_collection_is_known(request: pytest.FixtureRequest) -> None:
    if not FILES:
        pytest.skip("the shared DICOM files are not there (set TUMORSEG_SHARED)")
    assert set(REFUSED) <= {Path(name).name for name in FILES}


def test_8_bit_gray_stays_as_it_is_and_monochrome1_is_inverted(tmp_path: Path) -> None:
    stored = np.arange(60, 120, dtype=np.uint8).reshape(6, 10)
    np.testing.assert_array_equal(read_frame(write(tmp_path / "a.dcm", stored)).pixels, stored)
    inverted = read_frame(write(tmp_path / "b.dcm", stored, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(inverted.pixels, 255 - stored)
    few = read_frame(write(tmp_path / "c.dcm", stored // 8, BitsStored=4, HighBit=3))
    np.testing.assert_array_equal(few.pixels, stored // 8 * 17)


def test_wide_values_without_a_window_go_from_minimum_to_maximum(tmp_path: Path) -> None:
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


def test_rescale_then_window(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"WindowCenter": 5, "WindowWidth": 0}, "has a window 0.0 wide, expected at least 1"),
        ({"WindowCenter": 5, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"}, "expected more than 0"),
        ({"WindowCenter": 5, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "window function CUBIC"),
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, "RescaleSlope 0"),
        ({"PixelSpacing": [0, 1]}, "PixelSpacing is 0.0x1.0 mm, expected positive"),
        ({"Rows": 0}, "1 frames of 5x0 pixels"),
        ({"Rows": 7}, "frame .0. cannot be decoded"),
        ({"Rows": None}, "header cannot be decoded"),
        ({"NumberOfFrames": 0}, "0 frames of 5x4 pixels"),
        ({"NumberOfFrames": 3}, "cannot be decoded"),
        ({"PixelData": None}, "holds no pixels"),
        ({"PhotometricInterpretation": "CMYK"}, "is CMYK with 1 samples per pixel, expected one of"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "cannot be decoded"),
    ],
)
def test_what_cannot_be_decoded_rightly_is_refused(
    elements: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.dcm", np.arange(20, dtype=np.uint16).reshape(4, 5), **elements)
    with pytest.raises(InputError, match=message) as caught:
        decode(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_voi_table_and_a_modality_table(tmp_path: Path) -> None:
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


def test_colour_and_palette(tmp_path: Path) -> None:
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


def test_every_frame_is_an_image_and_read_frame_wants_one(tmp_path: Path) -> None:
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


def test_spacing_of_the_image_before_that_of_the_detector(tmp_path: Path) -> None:
    stored = np.zeros((4, 5), np.uint8)
    both = write(tmp_path / "a.dcm", stored, PixelSpacing=[0.5, 0.25], ImagerPixelSpacing=[1, 1])
    assert read_frame(both).spacings == (Spacing(0.5, 0.25, "PixelSpacing"),)
    detector = write(tmp_path / "b.dcm", stored, ImagerPixelSpacing=[1, 2])
    assert read_frame(detector).spacings == (Spacing(1, 2, "ImagerPixelSpacing"),)
    assert read_frame(write(tmp_path / "c.dcm", stored)).spacings == ()


def region(left: int, top: int, right: int, bottom: int, delta: float = 0.01, units: int = 3) -> Dataset:
    item = Dataset()
    item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right, bottom
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = units
    item.PhysicalDeltaX, item.PhysicalDeltaY = delta, -2 * delta
    item.RegionSpatialFormat, item.RegionDataType = 1, 1
    return item


def test_ultrasound_regions_in_centimetres(tmp_path: Path) -> None:
    stored = np.zeros((40, 50), np.uint8)
    doppler = region(0, 0, 9, 9)
    doppler.RegionSpatialFormat = 3
    items = [region(10, 5, 29, 24), region(30, 5, 49, 24, units=4), doppler]
    path = write(tmp_path / "a.dcm", stored, SequenceOfUltrasoundRegions=items)
    (found,) = read_frame(path).spacings
    assert found.source == "SequenceOfUltrasoundRegions"
    assert (found.row_mm, found.column_mm) == pytest.approx((0.2, 0.1))
    assert found.box == (10, 5, 20, 20)
    beyond = write(tmp_path / "b.dcm", stored, SequenceOfUltrasoundRegions=[region(10, 5, 52, 24)])
    assert read_frame(beyond).spacings == ()  # the image was made smaller since


def test_groups_of_an_enhanced_file_frame_by_frame(tmp_path: Path) -> None:
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


def test_limits_are_judged_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    from tumorseg_runtime.dicom_stream import check_stream

    dataset = Dataset()
    dataset.Rows, dataset.Columns, dataset.PixelRepresentation = 4, 5, 0
    check_stream(jpeg(4, 5), dataset)
    check_stream(b"\0rle", dataset)
    with pytest.raises(InputError, match="compressed frame of 60000x60000 pixels, its header says 5x4"):
        check_stream(jpeg(60000, 60000), dataset)
    with pytest.raises(InputError, match="without a header"):
        check_stream(b"\xff\xd8\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00", dataset)
    check_stream(jpeg(4, 5, 0xC3, 6), dataset)
    dataset.PixelRepresentation = 1
    check_stream(jpeg(4, 5, 0xC3, 1), dataset)
    with pytest.raises(InputError, match="predictor 6"):
        check_stream(jpeg(4, 5, 0xC3, 6), dataset)


def test_cut_off_and_flipped_files_give_one_line_or_pixels(tmp_path: Path) -> None:
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


def test_nothing_of_the_patient_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.dcm", np.zeros((4, 5), np.uint8))
    assert PATIENT["PatientName"].encode() in path.read_bytes()
    seen = dicom_module._read(path)
    assert {element.keyword for element in seen} <= {*dicom_module._TAGS, "SpecificCharacterSet"}
    assert not any(value in str(seen) for value in PATIENT.values())


def test_the_segmenter_measures_lesions_in_millimetres(
    small_bundle: Path, scene: Callable[..., Array], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.dcm", scene(90, 120), PixelSpacing=[0.5, 0.2])
    segmenter = Segmenter.open(small_bundle, threads=1)
    prediction = segmenter.predict(path)
    assert prediction.lesions
    for lesion in prediction.lesions:
        assert lesion.area_mm2 == pytest.approx(lesion.area_px * 0.1)
    clip = write(tmp_path / "clip.dcm", np.stack([scene(90, 120, seed=i) for i in range(3)]))
    results = list(segmenter.stream([path, clip, tmp_path / "gone.dcm", scene(30, 30)]))
    assert [result.index for result in results] == [0, 1, 1, 1, 2, 3]
    assert [result.error is None for result in results] == [True] * 4 + [False, True]
    assert results[2].name == f"{clip}[1]"
    np.testing.assert_array_equal(
        results[3].prediction.masks,
        segmenter.predict(scene(90, 120, seed=2)).masks,  # type: ignore[union-attr]
    )
