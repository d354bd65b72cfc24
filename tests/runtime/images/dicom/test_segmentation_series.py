"""`predict --series-seg`: one DICOM SEG object for all images of a series, or a line that says why none."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import Result

from tumorseg_runtime.core.errors import CheckFailedError, InputError
from tumorseg_runtime.images.read import read_image, write_png

Array = npt.NDArray[Any]
Write = Callable[..., Path]
Scene = Callable[..., Array]
Predict = Callable[..., Result]
MR, ULTRASOUND, CLIP = (
    "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1",
)  # fmt: skip
STUDY: dict[str, Any] = {
    "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "Modality": "MR", "PatientSex": "F",
    "StudyID": "7", "StudyDate": "20260102", "StudyTime": "030405", "SeriesNumber": 1,
}  # fmt: skip
TILTED = [1, 0, 0, 0, 0.8, 0.6]
NORMAL = np.array((0, -0.6, 0.8))
HEIGHTS = (7.0, -3.5, 3.5, 0.0, 10.5)  # of the files by name: no order of the patient's
pytestmark = pytest.mark.usefixtures("needs_highdicom")


@pytest.fixture
def needs_highdicom() -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed (extra dicom-seg)")


def place(height: float, **changes: Any) -> dict[str, Any]:
    """The geometry of a slice at this height along the normal."""
    position = [float(value) for value in np.array((-10, -20, 30)) + NORMAL * height]
    return {
        "FrameOfReferenceUID": "1.2.3.5", "PositionReferenceIndicator": "", "PixelSpacing": [0.5, 0.7],
        "ImageOrientationPatient": TILTED, "ImagePositionPatient": position, "SliceThickness": 3, **changes,
    }  # fmt: skip


@pytest.fixture
def series(write: Write, scene: Scene, tmp_path: Path) -> Path:
    """A folder with a series of slices."""
    folder = tmp_path / "series"
    folder.mkdir()
    for number, height in enumerate(HEIGHTS):
        facts = {**STUDY, **place(height), "InstanceNumber": number + 1}
        write(folder / f"{number}.dcm", scene(41, 51, seed=number), sop_class=MR, **facts)
    return folder


def report(out: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((out / "predictions.json").read_text())
    return values


def masks(out: Path, *names: object) -> Array:
    return np.stack([read_image(out / f"masks/{name}.png") > 0 for name in names])


def test_one_object_is_the_volume_of_the_series(
    small_bundle: Path, run_predict: Predict, series: Path, tmp_path: Path
) -> None:
    import highdicom
    import pydicom

    out = tmp_path / "out"
    assert run_predict(small_bundle, series, "--out", out).exception is None
    assert not (out / "series").exists()
    result = run_predict(small_bundle, series, "--out", out, "--resume", "--series-seg")
    assert result.exception is None, result.output
    assert "5 of 5 files are done already" in result.output
    made = highdicom.seg.segread(out / "series/1.2.3.4.seg.dcm")
    order = np.argsort(HEIGHTS)
    found = masks(out, *order)
    assert 0 < found.sum() < found.size
    np.testing.assert_array_equal(made.pixel_array, found)
    sources = [pydicom.dcmread(series / f"{number}.dcm") for number in order]
    (listed,) = made.ReferencedSeriesSequence
    assert listed.SeriesInstanceUID == "1.2.3.4"
    for source, frame, told in zip(
        sources, made.PerFrameFunctionalGroupsSequence, listed.ReferencedInstanceSequence, strict=True
    ):
        origin = frame.DerivationImageSequence[0].SourceImageSequence[0]
        for reference in (origin, told):
            assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
            assert reference.ReferencedSOPClassUID == MR
            assert "ReferencedFrameNumber" not in reference
        assert frame.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
    (measures,) = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert (measures.PixelSpacing, measures.SliceThickness) == ([0.5, 0.7], 3)
    assert measures.SpacingBetweenSlices == 3.5
    volume, expected = made.get_volume(segment_numbers=[1]), highdicom.get_volume_from_series(sources)
    turned = volume.match_geometry(expected)
    np.testing.assert_allclose(turned.affine, expected.affine, atol=1e-9)
    for index in range(len(order)):  # the mask of each place is that of the image there
        centre = expected.map_indices_to_reference(np.array([[index, 0, 0]]))
        source = next(one for one in sources if np.allclose(one.ImagePositionPatient, centre[0]))
        np.testing.assert_array_equal(turned.array[index, ..., 0], masks(out, Path(source.filename).stem)[0])
    assert report(out)["series"] == [
        {"series_instance": "1.2.3.4", "dicom_seg": "series/1.2.3.4.seg.dcm", "files": 5, "frames": 5}
    ]
    assert report(out)["failed"] == []


def test_sizes_and_frames_of_reference_have_their_own_object_and_stills_go_by_number(
    small_bundle: Path, run_predict: Predict, write: Write, scene: Scene, tmp_path: Path
) -> None:
    import pydicom

    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    facts = {**STUDY, "Modality": "US"}
    clip = np.stack([scene(41, 51, seed=seed) for seed in (7, 8)])
    write(folder / "a.dcm", scene(41, 51, seed=1), sop_class=ULTRASOUND, **facts, InstanceNumber=9)
    write(folder / "b.dcm", clip, sop_class=CLIP, **facts, InstanceNumber=5)
    write(folder / "c.dcm", scene(30, 30), sop_class=ULTRASOUND, **facts, InstanceNumber=2)
    other = {**facts, "SeriesInstanceUID": "1.2.3.9"}
    write(folder / "d.dcm", scene(41, 51, seed=2), sop_class=ULTRASOUND, **other, InstanceNumber=1)
    write_png(folder / "e.png", scene(30, 30))
    result = run_predict(small_bundle, folder, "--out", out, "--series-seg")
    assert result.exception is None, result.output
    assert "1 of 5 files are no DICOM images: of no series" in result.output
    assert [(one["dicom_seg"], one["files"], one["frames"]) for one in report(out)["series"]] == [
        ("series/1.2.3.4.seg.dcm", 2, 3), ("series/1.2.3.4-2.seg.dcm", 1, 1), ("series/1.2.3.9.seg.dcm", 1, 1)
    ]  # fmt: skip
    made = pydicom.dcmread(out / "series/1.2.3.4.seg.dcm")
    np.testing.assert_array_equal(made.pixel_array, masks(out, "b[0]", "b[1]", "a"))
    origins = [
        frame.DerivationImageSequence[0].SourceImageSequence[0]
        for frame in made.PerFrameFunctionalGroupsSequence
    ]
    assert [one.get("ReferencedFrameNumber") for one in origins] == [1, 2, None]
    assert [one.ReferencedSOPClassUID for one in origins] == [CLIP, CLIP, ULTRASOUND]
    listed = made.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert [one.ReferencedSOPClassUID for one in listed] == [CLIP, ULTRASOUND]
    assert not any("ReferencedFrameNumber" in one for one in listed)


def change(path: Path, **values: Any) -> None:
    import pydicom

    dataset = pydicom.dcmread(path)
    for name, value in values.items():
        if value is None:
            delattr(dataset, name)
        elif name.endswith("UID"):
            dataset[name] = pydicom.DataElement(name, "UI", value, validation_mode=pydicom.config.IGNORE)
        else:
            setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # pydicom's, of the path
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "3.dcm").write_bytes(b"x" * 200), "3.dcm could not be used"),
        (lambda folder: change(folder / "3.dcm", Rows=90), "3.dcm could not be used"),
        (lambda folder: change(folder / "3.dcm", PixelSpacing=None), "3.dcm could not be used"),
        (lambda folder: change(folder / "3.dcm", StudyID=None), "3.dcm could not be used"),
        (lambda folder: change(folder / "3.dcm", PatientName="Other^One"), "its study, patient or modality"),
        (lambda folder: shutil.copy(folder / "2.dcm", folder / "9.dcm"), "its SOP Instance UID is that of"),
        (lambda folder: change(folder / "3.dcm", SeriesInstanceUID="../../x"), "Series Instance UID is none"),
    ],
    ids=["no DICOM", "pixels", "no spacing", "no study", "another patient", "twice", "a path"],
)
def test_a_series_with_a_hole_has_no_object_not_even_an_earlier_one(
    damage: Callable[[Path], object],
    said: str,
    small_bundle: Path,
    run_predict: Predict,
    series: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    assert run_predict(small_bundle, series, "--out", out, "--series-seg").exception is None
    made = out / "series/1.2.3.4.seg.dcm"
    assert made.is_file()
    damage(series)
    for more in ([], ["--resume"]):
        result = run_predict(small_bundle, series, "--out", out, "--series-seg", *more)
        assert isinstance(result.exception, CheckFailedError)
        errors = [line for line in result.output.splitlines() if line.startswith("error: ")]
        assert any(said in line for line in errors), errors
        assert "Other^One" not in result.output
        assert len(report(out)["failed"]) == len(errors) <= 2
        assert not list(tmp_path.rglob("x*.seg.dcm"))
        if "is none" not in said:  # else the file is of another series, which cannot be told from a right one
            assert not made.exists()
            assert report(out)["series"] == []


def test_no_dicom_file_at_all_is_refused_before_anything_runs(
    small_bundle: Path, run_predict: Predict, scene: Scene, tmp_path: Path
) -> None:
    write_png(tmp_path / "a.png", scene(30, 30))
    result = run_predict(small_bundle, tmp_path / "a.png", "--out", tmp_path / "out", "--series-seg")
    assert isinstance(result.exception, InputError)
    assert "--series-seg expects" in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["volume", "stills"])
def test_other_tools_find_no_error(
    kind: str, small_bundle: Path, run_predict: Predict, series: Path, tmp_path: Path
) -> None:
    if kind == "stills":
        for path in series.iterdir():
            change(path, **dict.fromkeys(place(0)))
            change(path, SOPClassUID=ULTRASOUND, Modality="US")
    tools = [name for name in ("dciodvfy", "gdcminfo", "dcmdump") if shutil.which(name)]
    if not tools:
        pytest.skip("no tool is installed (Debian: apt-get install dicom3tools dcmtk libgdcm-tools)")
    out = tmp_path / "out"
    assert run_predict(small_bundle, series, "--out", out, "--series-seg").exception is None
    made = out / "series/1.2.3.4.seg.dcm"
    for name in tools:
        words = [name, *(["-new"] if name == "dciodvfy" else []), str(made)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        lines = (done.stdout + done.stderr).splitlines()
        assert any("Segmentation" in line for line in lines), (name, lines)
        assert [line for line in lines if line.lower().startswith(("error", "e:"))] == []
