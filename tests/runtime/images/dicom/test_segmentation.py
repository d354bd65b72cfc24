"""`tumorseg predict --dicom-seg`: what is in the object, what the validator says, what is refused."""

from __future__ import annotations

import io
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import Result

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BackendError, CheckFailedError, InputError
from tumorseg_runtime.images.dicom.segmentation import Maker, SegmentationBuilder
from tumorseg_runtime.images.frames import read_frame
from tumorseg_runtime.images.read import read_image, write_png

MR, ULTRASOUND = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.6.1"
STUDY: dict[str, Any] = {
    "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "Modality": "MR", "PatientSex": "F",
    "StudyID": "7", "StudyDate": "20260102", "StudyTime": "030405", "SeriesNumber": 1, "InstanceNumber": 1,
    "PatientName": "Mustermann^Erika",
}  # fmt: skip
PLACE: dict[str, Any] = {
    "FrameOfReferenceUID": "1.2.3.5", "PositionReferenceIndicator": "", "PixelSpacing": [0.5, 0.7],
    "ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "ImagePositionPatient": [10, -20, 30],
    "SliceThickness": 5,
}  # fmt: skip
Write = Callable[..., Path]
Scene = Callable[..., npt.NDArray[np.uint8]]
Predict = Callable[..., Result]


@pytest.fixture
def source(write: Write, scene: Scene, tmp_path: Path) -> Path:
    """An MR image of 60x70 with all that an object needs."""
    pytest.importorskip("highdicom", reason="highdicom is not installed (extra dicom-seg)")
    return write(tmp_path / "one.dcm", scene(60, 70), sop_class=MR, **STUDY, **PLACE)


def test_the_object_has_the_mask_its_source_geometry_and_the_bundle(
    small_bundle: Path, run_predict: Predict, source: Path, patient: dict[str, str], tmp_path: Path
) -> None:
    import pydicom

    out = tmp_path / "out"
    result = run_predict(small_bundle, source, "--out", out, "--dicom-seg")
    assert result.exception is None, result.output
    mask = read_image(out / "masks/one.png") > 0
    assert 0 < mask.sum() < mask.size
    made, image = pydicom.dcmread(out / "masks/one.seg.dcm"), pydicom.dcmread(source)
    assert made.Modality == "SEG"
    assert made.SegmentationType == "BINARY"
    np.testing.assert_array_equal(made.pixel_array.reshape(mask.shape), mask)
    (series,) = made.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == image.SeriesInstanceUID
    assert series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
    (frame,) = made.PerFrameFunctionalGroupsSequence
    origin = frame.DerivationImageSequence[0].SourceImageSequence[0]
    assert origin.ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert origin.ReferencedSOPClassUID == MR
    assert frame.PlanePositionSequence[0].ImagePositionPatient == PLACE["ImagePositionPatient"]
    shared = made.SharedFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == PLACE["PixelSpacing"]
    plane = shared.PlaneOrientationSequence[0]
    assert plane.ImageOrientationPatient == PLACE["ImageOrientationPatient"]
    assert made.FrameOfReferenceUID == PLACE["FrameOfReferenceUID"]
    (segment,) = made.SegmentSequence
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodingSchemeDesignator, kind.CodeValue) == ("SCT", "108369006")
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    bundle = Bundle.open(small_bundle)
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (bundle.name, bundle.digest())
    assert made.StudyInstanceUID == image.StudyInstanceUID
    assert made.PatientID == patient["PatientID"]
    for path in out.rglob("*"):
        if path.is_file() and path.suffix != ".dcm":
            assert patient["PatientID"].encode() not in path.read_bytes(), path
    (line,) = json.loads((out / "predictions.json").read_text())["images"]
    assert line["dicom_seg"] == "masks/one.seg.dcm"
    again = (small_bundle, source, "--out", out, "--dicom-seg", "--resume")
    assert "1 of 1 files are done already" in run_predict(*again).output
    (out / line["dicom_seg"]).unlink()
    run_predict(*again)
    assert (out / line["dicom_seg"]).is_file()


def test_what_cannot_be_referenced_is_refused_with_one_line_and_the_rest_goes_on(
    small_bundle: Path, run_predict: Predict, source: Path, write: Write, scene: Scene, tmp_path: Path
) -> None:
    clip = np.stack([scene(40, 50, seed=seed) for seed in range(3)])
    paths = [
        write(tmp_path / "clip.dcm", clip, sop_class=ULTRASOUND, **STUDY, FrameOfReferenceUID="1.2"),
        write(tmp_path / "bare.dcm", scene(40, 50)),
        write(tmp_path / "tilted.dcm", scene(40, 50), **STUDY, FrameOfReferenceUID="1.2"),
        tmp_path / "plain.png",
    ]
    write_png(paths[-1], scene(40, 50))
    out = tmp_path / "out"
    result = run_predict(small_bundle, *paths, source, "--out", out, "--dicom-seg")
    assert isinstance(result.exception, CheckFailedError)
    assert "4 of 5 files" in str(result.exception)
    errors = [line for line in result.output.splitlines() if line.startswith("error: ")]
    reasons = (
        "lacks ImagePositionPatient",
        "lacks StudyInstanceUID, ",
        "lacks ImagePositionPatient, ",
        "it is no DICOM image",
    )
    assert len(errors) == len(reasons)
    for line, path, reason in zip(errors, paths, reasons, strict=True):
        assert str(path) in line
        assert reason in line
        assert "without --dicom-seg" in line
    assert sorted(path.name for path in (out / "masks").iterdir()) == ["one.png", "one.seg.dcm"]


def test_a_name_that_highdicom_doubts_is_told_nobody(
    small_bundle: Path, run_predict: Predict, source: Path, write: Write, scene: Scene, tmp_path: Path
) -> None:
    facts = {**STUDY, "PatientName": "Mustermann"}  # one component: a warning of highdicom would quote it
    write(source, scene(60, 70), sop_class=MR, **facts, **PLACE)
    with warnings.catch_warnings(record=True) as told:
        result = run_predict(small_bundle, source, "--out", tmp_path / "out", "--dicom-seg")
    assert result.exception is None, result.output
    assert "Mustermann" not in result.output + "".join(str(one.message) for one in told)


def test_each_class_is_a_segment_in_the_order_of_the_contract(source: Path) -> None:
    import pydicom

    masks = np.random.default_rng(1).random((3, 60, 70)) > 0.7
    masks[1] = False  # an empty one keeps its frame
    maker = Maker("net", "0" * 64, "1", ("edema", "Tumour", "necrosis"), "softmax", None)
    frame = read_frame(source)
    builder = SegmentationBuilder(source, frame, maker)
    builder.add(frame, masks)
    made = pydicom.dcmread(io.BytesIO(builder.encode()))
    np.testing.assert_array_equal(made.pixel_array, masks)
    frames = made.PerFrameFunctionalGroupsSequence
    assert [one.SegmentIdentificationSequence[0].ReferencedSegmentNumber for one in frames] == [1, 2, 3]
    meanings = [one.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for one in made.SegmentSequence]
    assert meanings == ["Edema", "Neoplasm", "Necrosis"]
    assert [one.SegmentLabel for one in made.SegmentSequence] == list(maker.classes)


def test_without_highdicom_or_a_code_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    maker = Maker("net", "0" * 64, "1", ("tumour", "sulcus"), "sigmoid", 0.5)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(BackendError, match=r"highdicom is not installed.*tumorseg\[dicom-seg\]"):
        maker.check()
    monkeypatch.setitem(sys.modules, "highdicom", type(sys)("highdicom"))
    with pytest.raises(InputError, match="class 'sulcus' has no SNOMED CT code"):
        maker.check()
