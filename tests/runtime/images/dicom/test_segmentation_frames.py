"""`predict --dicom-seg` of multi-frame ultrasound and enhanced MR; what DICOM's validators say of objects."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import Result

from tumorseg_runtime import Segmenter
from tumorseg_runtime.core.errors import CheckFailedError, OutputError
from tumorseg_runtime.images.read import read_image

Array = npt.NDArray[Any]
Write = Callable[..., Path]
Predict = Callable[..., Result]
MR, ULTRASOUND = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.6.1"
ENHANCED_MR, CLIP = "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.3.1"
STUDY: dict[str, Any] = {
    "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "Modality": "MR", "PatientSex": "F",
    "StudyID": "7", "StudyDate": "20260102", "StudyTime": "030405", "SeriesNumber": 1, "InstanceNumber": 1,
}  # fmt: skip
PLACE: dict[str, Any] = {
    "FrameOfReferenceUID": "1.2.3.5", "PositionReferenceIndicator": "", "PixelSpacing": [0.5, 0.7],
    "ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "ImagePositionPatient": [10, -20, 30],
    "SliceThickness": 5,
}  # fmt: skip
AXIAL, TILTED = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0.8, 0.6]


def item(**values: Any) -> Any:
    from pydicom.dataset import Dataset

    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def groups(heights: Sequence[float], tilted: Sequence[int] = ()) -> dict[str, Any]:
    """Functional groups of an enhanced image: frames at these heights, some with their own orientation."""
    measures = item(PixelSpacing=[0.5, 0.5], SliceThickness=3, SpacingBetweenSlices=3.5)
    frames = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[-10, -20, height])],
            PlaneOrientationSequence=[item(ImageOrientationPatient=TILTED if n in tilted else AXIAL)],
        )
        for n, height in enumerate(heights)
    ]
    return {
        "SharedFunctionalGroupsSequence": [item(PixelMeasuresSequence=[measures])],
        "PerFrameFunctionalGroupsSequence": frames,
        "FrameOfReferenceUID": "1.2.3.5",
        "PositionReferenceIndicator": "",
    }


@pytest.fixture
def clip(scene: Callable[..., Array]) -> Array:
    """Four frames whose pixels are no multiple of 8."""
    return np.stack([scene(41, 51, seed=seed) for seed in range(4)])


@pytest.fixture
def make(write: Write, scene: Callable[..., Array], clip: Array, tmp_path: Path) -> Callable[[str], Path]:
    """Function that writes a source of a kind."""
    pytest.importorskip("highdicom", reason="highdicom is not installed (extra dicom-seg)")

    def written(kind: str) -> Path:
        path = tmp_path / "one.dcm"
        us = {**STUDY, "Modality": "US"}
        if kind == "placed":
            return write(path, scene(60, 70), sop_class=MR, **STUDY, **PLACE)
        if kind == "empty":
            return write(path, np.zeros((60, 70), np.uint8), sop_class=MR, **STUDY, **PLACE)
        if kind == "ultrasound":  # without a frame of reference, in colour
            return write(path, scene(60, 70, colour=True), sop_class=ULTRASOUND, **us)
        if kind == "clip":
            return write(path, clip, sop_class=CLIP, **us)
        if kind == "enhanced of one frame":
            return write(path, clip[:1], sop_class=ENHANCED_MR, **STUDY, **groups([7]))
        heights = (12, 8.5, 12, 5) if kind == "enhanced in time" else (12, 8.5, 5, 1.5)
        return write(
            path, clip, sop_class=ENHANCED_MR, **STUDY, **groups(heights, (1,) if "tilted" in kind else ())
        )

    return written


def masks_of(out: Path, frames: int) -> Array:
    return np.stack([read_image(out / f"masks/one[{index}].png") > 0 for index in range(frames)])


@pytest.mark.parametrize("kind", ["clip", "enhanced", "enhanced in time", "enhanced tilted"])
def test_one_object_holds_all_frames_with_their_references(
    kind: str, small_bundle: Path, run_predict: Predict, make: Callable[[str], Path], tmp_path: Path
) -> None:
    import pydicom

    source, out = make(kind), tmp_path / "out"
    result = run_predict(small_bundle, source, "--out", out, "--dicom-seg")
    assert result.exception is None, result.output
    made, image = pydicom.dcmread(out / "masks/one.seg.dcm"), pydicom.dcmread(source)
    masks = masks_of(out, 4)
    assert 0 < masks.sum() < masks.size
    np.testing.assert_array_equal(made.pixel_array, masks)
    assert made.NumberOfFrames == 4
    (instance,) = made.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert instance.ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert instance.ReferencedSOPClassUID == image.SOPClassUID
    values = []
    for index, frame in enumerate(made.PerFrameFunctionalGroupsSequence):
        origin = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert origin.ReferencedFrameNumber == index + 1
        assert origin.ReferencedSOPInstanceUID == image.SOPInstanceUID
        assert origin.ReferencedSOPClassUID == image.SOPClassUID
        content = frame.FrameContentSequence[0].DimensionIndexValues
        values.append(list(content) if isinstance(content, list | pydicom.multival.MultiValue) else [content])
        if kind != "clip":
            mine = image.PerFrameFunctionalGroupsSequence[index]
            assert frame.PlanePositionSequence == mine.PlanePositionSequence
            holder = frame if kind == "enhanced tilted" else made.SharedFunctionalGroupsSequence[0]
            assert holder.PlaneOrientationSequence == mine.PlaneOrientationSequence
    assert (
        values
        == {
            "clip": [[1, 1], [1, 2], [1, 3], [1, 4]],
            "enhanced": [[1, 4], [1, 3], [1, 2], [1, 1]],
            "enhanced tilted": [[1, 4], [1, 3], [1, 2], [1, 1]],
            "enhanced in time": [[1, 3, 1], [1, 2, 1], [1, 3, 2], [1, 1, 1]],
        }[kind]
    )
    assert len(made.DimensionIndexSequence) == len(values[0])
    if kind != "clip":
        shared = made.SharedFunctionalGroupsSequence[0]
        assert shared.PixelMeasuresSequence[0].SpacingBetweenSlices == 3.5
    lines = json.loads((out / "predictions.json").read_text())["images"]
    assert [line.get("dicom_seg") for line in lines] == [None] * 3 + ["masks/one.seg.dcm"]
    again = (small_bundle, source, "--out", out, "--dicom-seg", "--resume")
    assert "1 of 1 files are done already" in run_predict(*again).output
    (out / "masks/one.seg.dcm").unlink()
    run_predict(*again)
    assert (out / "masks/one.seg.dcm").is_file()


def test_a_frame_that_fails_leaves_its_file_without_an_object(
    small_bundle: Path,
    run_predict: Predict,
    make: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submit, calls = Segmenter.submit, []

    def failing(self: Segmenter, *arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise OutputError("logits are not finite")
        return submit(self, *arguments, **named)

    monkeypatch.setattr(Segmenter, "submit", failing)
    result = run_predict(small_bundle, make("clip"), "--out", tmp_path / "out", "--dicom-seg")
    assert isinstance(result.exception, CheckFailedError)
    written = sorted(path.name for path in (tmp_path / "out/masks").iterdir())
    assert written == ["one[0].png", "one[2].png", "one[3].png"]


KINDS = [
    "placed", "ultrasound", "empty", "clip", "enhanced", "enhanced in time", "enhanced tilted",
    "enhanced of one frame",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("kind", KINDS)
def test_other_tools_read_the_object_and_find_no_error(
    kind: str, small_bundle: Path, run_predict: Predict, make: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run_predict(small_bundle, make(kind), "--out", out, "--dicom-seg")
    assert result.exception is None, result.output
    made = out / "masks/one.seg.dcm"
    said = {
        name: run(name, *options, made)
        for name, options in (("dciodvfy", ["-new"]), ("gdcminfo", []), ("dcmdump", []))
        if shutil.which(name)
    }
    if not said:
        pytest.skip("no tool is installed (Debian: apt-get install dicom3tools dcmtk libgdcm-tools)")
    for name, lines in said.items():
        assert any("Segmentation" in line for line in lines), (name, lines)
        assert [line for line in lines if line.lower().startswith(("error", "e:"))] == []


def run(*command: object) -> list[str]:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=60, check=False
    )
    return (done.stdout + done.stderr).splitlines()
