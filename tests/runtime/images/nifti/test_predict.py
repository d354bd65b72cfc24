"""`tumorseg predict` on volumes: a volume in, a mask volume of the same grid out, mm³ per lesion."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import Result

import tumorseg_runtime.outputs.volume_results as volume_results
from tumorseg_runtime import Segmenter
from tumorseg_runtime.core.errors import CheckFailedError, OutputError
from tumorseg_runtime.images.frames import read_frames
from tumorseg_runtime.images.read import read_image

Array = npt.NDArray[Any]
Volume = Callable[..., Path]
Predict = Callable[..., Result]
ROOT = Path(__file__).parents[4]
LPS = np.array(((-0.5, 0, 0, 40), (0, -0.5, 0, 60), (0, 0, 3, -20), (0, 0, 0, 1)))
TURNED = np.array(((0, -0.9, 0.1, 40), (0.9, 0, 0, 60), (0, 0.1, 2.7, -20), (0, 0, 0, 1)))


def report(out: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((out / "predictions.json").read_text())
    return values


@pytest.mark.parametrize("kind", ["LPS", "turned", "NIfTI-2", "big endian"])
def test_the_mask_has_the_volumes_grid_and_lesions_have_mm3(
    kind: str,
    small_bundle: Path,
    run_predict: Predict,
    volume: Volume,
    blobs: Callable[..., Array],
    tmp_path: Path,
) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (extra nifti)")
    values, path = blobs(60, 44, 7), tmp_path / "in/scan.nii.gz"
    if kind == "turned":
        sides = np.sqrt((TURNED[:3, :3] ** 2).sum(axis=0))
        rotation = np.linalg.qr(TURNED[:3, :3] / sides)[0]
        affine = np.eye(4)
        affine[:3, :3] = rotation * np.sign((rotation * TURNED[:3, :3]).sum(axis=0)) * (0.9, 0.9, 2.7)
        affine[:3, 3] = TURNED[:3, 3]
        volume(path, values, affine, descrip=b"Mustermann^Erika")
    elif kind == "NIfTI-2":
        path.parent.mkdir()
        nibabel.Nifti2Image(values, LPS).to_filename(path)
    elif kind == "big endian":
        path.parent.mkdir()
        header = nibabel.Nifti1Header(endianness=">")
        nibabel.Nifti1Image(values, LPS, header).to_filename(path)
    else:
        volume(path, values, LPS, qform_code=0, db_name=b"Mustermann")
    out = tmp_path / "out"
    result = run_predict(small_bundle, path, "--out", out, "--probabilities")
    assert result.exit_code == 0, result.output
    source, mask = nibabel.load(path), nibabel.load(out / "masks/scan.nii.gz")
    assert mask.shape == source.shape
    assert type(mask) is type(source)
    np.testing.assert_array_equal(mask.affine, source.affine)
    assert nibabel.aff2axcodes(mask.affine) == nibabel.aff2axcodes(source.affine)
    for name in ("pixdim", "qform_code", "sform_code", "xyzt_units"):
        np.testing.assert_array_equal(mask.header[name], source.header[name], name)
    assert b"Mustermann" not in mask.header.binaryblock
    found = np.asarray(mask.dataobj)
    assert found.dtype == np.uint8
    assert set(np.unique(found)) == {0, 1}

    with Segmenter.open(small_bundle) as segmenter:
        slices = [segmenter.predict(frame) for frame in read_frames(path)]
    opened = volume_results.open_volume(path)
    for index, one in enumerate(slices):
        np.testing.assert_array_equal(found[:, :, index].T, opened.stored(one.mask))
    maps = np.asarray(nibabel.load(out / "probabilities/scan.nii.gz").dataobj)
    np.testing.assert_allclose(maps[:, :, 3].T, opened.stored(slices[3].probabilities()[0]), atol=1 / 65535)

    (line,) = report(out)["volumes"]
    assert report(out)["images"] == []
    schema = json.loads((ROOT / "docs/schemas/predict.schema.json").read_text())["properties"]["volumes"][
        "items"
    ]
    assert line.keys() == schema["properties"].keys()
    assert line["lesions"][0].keys() == schema["properties"]["lesions"]["items"]["properties"].keys()
    assert line["voxels"] == list(values.shape)
    assert line["voxel_mm3"] == pytest.approx(abs(np.linalg.det(source.affine[:3, :3])))
    assert sum(lesion["voxels"] for lesion in line["lesions"]) == found.sum()
    assert sum(lesion["volume_mm3"] for lesion in line["lesions"]) == pytest.approx(
        found.sum() * line["voxel_mm3"]
    )
    assert f"scan.nii.gz (60x44x7): {line['lesion_count']} lesion(s): tumour " in result.output
    assert "0 images, 1 volumes -> " in result.output
    most = max(slices, key=lambda one: one.mask.sum())
    assert line["overlay_slice"] == most.frame.index
    assert read_image(out / line["overlay"]).shape == (*most.mask.shape, 3)


def test_folders_resume_and_files_that_fail(
    small_bundle: Path, run_predict: Predict, volume: Volume, blobs: Callable[..., Array], tmp_path: Path
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    volume(folder / "a/t1.nii", blobs(30, 30, 3))
    volume(folder / "b/t1.nii.gz", blobs(30, 30, 3, seed=1))
    volume(folder / "b/1_seg.nii.gz", (blobs(30, 30, 3) > 0).astype(np.uint8))
    cut = volume(folder / "c.nii.gz", blobs(30, 30, 30))
    cut.write_bytes(cut.read_bytes()[:-900])
    result = run_predict(small_bundle, folder, "--out", out)
    assert isinstance(result.exception, CheckFailedError)
    assert "1 of 3 files could not be segmented" in str(result.exception)
    assert "skipped 1 masks (NAME_mask, NAME_seg.nii" in result.output
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert written == {
        "masks/a__t1.nii", "masks/b__t1.nii.gz", "overlays/a__t1.png", "overlays/b__t1.png",
        "predictions.json", "predictions.jsonl",
    }  # fmt: skip
    (failed,) = report(out)["failed"]
    assert failed["error"].startswith(f"{cut}: is compressed and damaged or cut off")
    before = (out / "masks/b__t1.nii.gz").stat().st_mtime_ns
    (out / "masks/a__t1.nii").unlink()
    volume(cut, blobs(30, 30, 2))
    result = run_predict(small_bundle, folder, "--out", out, "--resume")
    assert result.exit_code == 0, result.output
    assert "1 of 3 files are done already" in result.output
    assert (out / "masks/b__t1.nii.gz").stat().st_mtime_ns == before
    assert len(report(out)["volumes"]) == 3


def test_a_slice_that_fails_fails_the_volume_and_leaves_no_file(
    small_bundle: Path,
    run_predict: Predict,
    volume: Volume,
    blobs: Callable[..., Array],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = [
        volume(tmp_path / f"{name}.nii.gz", blobs(30, 30, 6, seed=seed)) for seed, name in enumerate("ab")
    ]
    submit, calls = Segmenter.submit, []

    def failing(self: Segmenter, *arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) in (3, 5):
            raise OutputError("logits are not finite")
        return submit(self, *arguments, **named)

    monkeypatch.setattr(Segmenter, "submit", failing)
    out = tmp_path / "out"
    result = run_predict(small_bundle, *paths, "--out", out)
    assert isinstance(result.exception, CheckFailedError)
    (failed,) = report(out)["failed"]
    assert failed == {"image": f"{paths[0]}[2]", "file": str(paths[0]), "error": "logits are not finite"}
    assert [line["file"] for line in report(out)["volumes"]] == [str(paths[1])]
    assert [path.name for path in (out / "masks").iterdir()] == ["b.nii.gz"]


def test_a_run_that_is_stopped_leaves_no_half_volume(
    small_bundle: Path,
    run_predict: Predict,
    volume: Volume,
    blobs: Callable[..., Array],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, out = volume(tmp_path / "a.nii.gz", blobs(30, 30, 6)), tmp_path / "out"
    add = volume_results._Outputs.add

    def stopped(self: Any, prediction: Any) -> None:
        if prediction.frame.index == 3:
            raise KeyboardInterrupt
        add(self, prediction)

    monkeypatch.setattr(volume_results._Outputs, "add", stopped)
    result = run_predict(small_bundle, path, "--out", out)
    assert result.exit_code != 0
    assert list((out / "masks").iterdir()) == []


def test_dicom_seg_of_a_volume_is_refused(
    small_bundle: Path, run_predict: Predict, volume: Volume, blobs: Callable[..., Array], tmp_path: Path
) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed (extra dicom-seg)")
    path = volume(tmp_path / "a.nii.gz", blobs(30, 30, 3))
    result = run_predict(small_bundle, path, "--out", tmp_path / "out", "--dicom-seg")
    assert isinstance(result.exception, CheckFailedError)
    assert f"error: {path}: cannot be referenced by a DICOM SEG: it is no DICOM image" in result.output
