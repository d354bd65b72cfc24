"""DICOM files for the tests: written here, with a patient's data in them, and read without warnings.

Where pydicom is not installed (extra dicom), every test that uses them is skipped.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest

from tumorseg_runtime.images.frame import Frame
from tumorseg_runtime.images.frames import read_frames

Array = npt.NDArray[Any]
PLAIN = "1.2.840.10008.1.2.1"  # explicit VR, little endian, not compressed
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
PATIENT = {
    "PatientName": "Mustermann^Erika",
    "PatientID": "ID-4711-XYZ",
    "PatientBirthDate": "19640812",
    "ReferringPhysicianName": "Quacksalber^Otto",
    "AccessionNumber": "ACC0815",
    "InstitutionName": "Klinik am Waldrand",
    "StudyDescription": "Secret Study",
}


@pytest.fixture(scope="session")
def write() -> Callable[..., Path]:
    """Function that writes a DICOM file of stored values, with patient data and elements of one's own."""
    pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")
    return _write


@pytest.fixture(scope="session")
def decode() -> Callable[[Path], list[Frame]]:
    """Function that reads all frames of a file that may be broken on purpose."""
    return _decode


@pytest.fixture(scope="session")
def patient() -> dict[str, str]:
    """What every file of `write` says of its patient, by DICOM's keywords."""
    return PATIENT


def _write(
    path: Path, stored: Array, *, syntax: str = PLAIN, sop_class: str = CAPTURE, **elements: Any
) -> Path:
    """A file of stored values (H, W), (H, W, 3) or (F, H, W), with patient data; `elements` are set last,
    and removed where None."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import RLELossless, generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
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
    if syntax == RLELossless:
        dataset.file_meta.TransferSyntaxUID = PLAIN
        dataset.compress(RLELossless, encoding_plugin="pydicom")
    for name, value in elements.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _decode(path: Path) -> list[Frame]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's remarks on files that are broken on purpose
        return list(read_frames(path))
