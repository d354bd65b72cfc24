"""`tumorseg predict` on a folder of DICOM files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import Result

from tumorseg_runtime.core.errors import CheckFailedError


def test_dicom_files_frames_and_no_patient_data(
    small_bundle: Path,
    run_predict: Callable[..., Result],
    write: Callable[..., Path],
    patient: dict[str, str],
    tmp_path: Path,
    scene: Callable[..., npt.NDArray[np.uint8]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    facts = {"ImagerPixelSpacing": [0, 0], "SOPInstanceUID": "1.2.3.4"}
    write(folder / "one.dcm", scene(60, 70), PixelSpacing=[0.5, 0.5], **facts)
    write(folder / "1.2.840.99", np.stack([scene(40, 50, seed=seed) for seed in range(3)]))
    write(folder / "broken.dcm", scene(30, 30), Rows=90)
    write(folder / "empty.dcm", scene(30, 30), PixelData=None)
    (folder / "notes").write_text("no image")
    report, dose = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.840.10008.5.1.4.1.1.481.2"
    write(folder / "report.dcm", scene(30, 30), sop_class=report, PixelData=None)
    write(folder / "7.7.7", scene(30, 30), sop_class=dose)
    write(folder / "state.dcm", scene(30, 30), Modality="PR")
    out = tmp_path / "out"
    result = run_predict(small_bundle, folder, "--out", out)
    assert isinstance(result.exception, CheckFailedError)
    assert "skipped DICOM files that are no images: 1 PR, 1 RTDOSE, 1 SR" in result.output
    masks = ["1.2.840[0].png", "1.2.840[1].png", "1.2.840[2].png", "one.png"]
    assert sorted(path.name for path in (out / "masks").rglob("*.png")) == masks
    report = json.loads((out / "predictions.json").read_text())
    assert [Path(line["image"]).name for line in report["failed"]] == ["broken.dcm", "empty.dcm"]
    (one,) = [line for line in report["images"] if line["image"].endswith("one.dcm")]
    assert one["spacings"][0]["row_mm"] == 0.5
    assert one["sop_instance"] == "1.2.3.4"
    assert one["warnings"] == ["ImagerPixelSpacing is 0.0x0.0, expected two positive numbers: no millimetres"]
    assert f"warning: {folder / 'one.dcm'}: {one['warnings'][0]}\n" in result.output
    assert sum(lesion["area_mm2"] for lesion in one["lesions"]) == pytest.approx(
        0.25 * sum(lesion["area_px"] for lesion in one["lesions"])
    )
    assert "mm2)" in result.output
    written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    printed = result.output + str(result.exception) + "".join(capfd.readouterr())
    for value in patient.values():
        for part in value.split("^"):
            assert part.encode() in (folder / "one.dcm").read_bytes()
            assert part.encode() not in written
            assert part not in printed
    assert (
        "2 of 4 files are done already" in run_predict(small_bundle, folder, "--out", out, "--resume").output
    )
    assert len(json.loads((out / "predictions.json").read_text())["images"]) == 4
