"""Every file of the shared collection against pydicom's own functions."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.frame import Frame

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")

Array = npt.NDArray[Any]
Decode = Callable[[Path], list[Frame]]
SHARED = Path(os.environ.get("TUMORSEG_SHARED", Path(__file__).parents[5] / "shared")) / "data" / "dicom"
FILES = sorted(path.relative_to(SHARED).as_posix() for path in SHARED.glob("*/*.dcm"))

# Why a file of the collection is refused. All others must be decoded.
REFUSED = {
    "ExplVR_BigEndNoMeta.dcm": "lacks the mark of a DICOM file",
    "ExplVR_LitEndNoMeta.dcm": "lacks the mark of a DICOM file",
    "no_meta.dcm": "lacks the mark of a DICOM file",
    "meta_missing_tsyntax.dcm": "does not say its transfer syntax",
    "empty_charset_LEI.dcm": "holds no pixels",
    "no_meta_group_length.dcm": "holds no pixels",
    **dict.fromkeys(
        (
            "badVR.dcm",
            "rtdose.dcm",
            "rtdose_1frame.dcm",
            "rtdose_expb.dcm",
            "rtdose_expb_1frame.dcm",
            "rtdose_rle.dcm",
            "rtdose_rle_1frame.dcm",
        ),
        "is a DICOM RTDOSE, expected an image: leave it out",
    ),
    **dict.fromkeys(("liver_1frame.dcm", "liver_expb_1frame.dcm"), "is a DICOM SEG, expected an image"),
    "MR_truncated.dcm": "less than expected .8130 vs 8192 bytes.",
    "JPEG2000-embedded-sequence-delimiter.dcm": "compressed frame of 3722445056x1024 pixels",
    "JPEGLossless_1s_1f_i_16_16_bad.dcm": "signed values with predictor 6",
    "TOSHIBA_J2K_SIZ1_PixRep0.dcm": "JPEG 2000 of signed values, its header says unsigned",
}

# Frames that pydicom's decoder refuses, and files that hold the same pixels in frames that it takes.
SAME = {"JPEG-lossy.dcm": "JPGExtended.dcm", "RG2_JPLY.dcm": "RG2_JPLY_fixed.dcm"}


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
def test_every_shared_file_is_decoded_as_pydicom_does_or_refused_with_the_reason(
    decode: Decode, name: str
) -> None:
    pytest.importorskip("openjpeg")
    path = SHARED / name
    if path.name in REFUSED:
        with pytest.raises(InputError, match=REFUSED[path.name]) as caught:
            decode(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
        return
    frames, expected = decode(path), reference(path.with_name(SAME.get(path.name, path.name)))
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
