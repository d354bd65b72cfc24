"""NIfTI volumes as a dataset: slices grouped by patient, from `data import` to training's tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.frames import read_frames
from tumorseg_train.commands.data import data
from tumorseg_train.data.checks import check_samples
from tumorseg_train.data.datasets import find_samples, read_pair
from tumorseg_train.data.split import PARTS, Manifest, make_manifest
from tumorseg_train.layouts.declaration import Declaration
from tumorseg_train.layouts.proposal import propose
from tumorseg_train.layouts.volumes import content_hash, same_content

Array = npt.NDArray[Any]
SIDES = (40, 48, 6)
AFFINE = np.diag((-1.0, -1, 3, 1))  # as BraTS has it, but for the thickness
SERIES = ("t1", "t1ce", "t2", "flair")


def put(path: Path, values: Array, affine: Array = AFFINE) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (extra nifti)")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(values, affine).to_filename(path)


def patient(seed: int) -> tuple[Array, Array]:
    """int16 image and uint8 labels 0, 2, 4, (X, Y, Z)."""
    random = np.random.default_rng(seed)
    x, y, z = np.mgrid[: SIDES[0], : SIDES[1], : SIDES[2]]
    centre = random.uniform((12, 12, 2), (28, 36, 4))
    apart = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + 9 * (z - centre[2]) ** 2)
    labels = np.where(apart < 3, 4, np.where(apart < 7, 2, 0)).astype(np.uint8)
    return (random.integers(0, 500, SIDES) + 100 * labels).astype(np.int16), labels


def brats(root: Path, count: int = 6) -> None:
    for number in range(1, count + 1):
        name = f"BraTS20_Training_{number:03d}"
        image, labels = patient(number)
        for one in SERIES:
            put(root / name / f"{name}_{one}.nii.gz", image + SERIES.index(one))
        put(root / name / f"{name}_seg.nii.gz", labels)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(data, [str(one) for one in arguments])


def test_brats_is_imported_prepared_and_split_by_patient(tmp_path: Path) -> None:
    root = tmp_path / "BraTS"
    brats(root)
    refused = run("import", root, "--yes")
    assert isinstance(refused.exception, InputError)
    assert "has 3 values (0, 2, 4), expected black and one other: name the tumour's" in str(refused.exception)
    result = run("import", root, "--tumour", "any", "--yes")
    assert result.exit_code == 0, result.output
    assert "36 images: 36 brain tumour, 6 patients" in result.output
    assert "6 volumes: each slice is an image" in result.output
    assert "18 other series such as BraTS20_Training_001_flair.nii.gz are not read" in result.output
    (declared,) = propose(root, {"tumour": "any"})
    assert (declared.pairing, declared.patient) == ("*_t1ce=*_seg", "folder")
    result = run("prepare", root)
    assert result.exit_code == 0, result.output
    manifest = Manifest.read(root / "split.json", root)
    assert len(manifest.items) == 36
    parts = [{item.image.partition("/")[0] for item in manifest.part(part)} for part in PARTS]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 6
    assert all(parts)
    _, labels = patient(2)
    item = next(item for item in manifest.items if item.image.endswith("002_t1ce.nii.gz[3]"))
    pixels, tumour = read_pair(root, item)
    np.testing.assert_array_equal(tumour, labels[:, :, 3].T > 0)
    assert item.tumour_px == tumour.sum()
    frames = list(read_frames(root / item.image.removesuffix("[3]")))
    np.testing.assert_array_equal(pixels, frames[3].pixels)  # what `predict` shows the network
    audit = run("audit", root, "--split", root / "split.json", "--json")
    assert audit.exit_code == 0, audit.output
    assert json.loads(audit.stdout)["split"]["changed"] == []


@pytest.mark.parametrize(
    ("images", "masks", "pairing"),
    [
        ("imagesTr/case_{}_0000.nii.gz", "labelsTr/case_{}.nii.gz", "*_0000=*"),
        ("imagesTr/brain_{}.nii.gz", "labelsTr/brain_{}.nii.gz", "*=*"),
        ("sub-{0}/sub-{0}-t1c.nii.gz", "sub-{0}/sub-{0}-seg.nii.gz", "*-t1c=*-seg"),
        ("images/{}.nii", "masks/{}_mask.nii.gz", "*=*|*_mask"),
    ],
)
def test_layouts_of_volumes(images: str, masks: str, pairing: str, tmp_path: Path) -> None:
    for number in range(1, 4):
        image, labels = patient(number)
        put(tmp_path / images.format(number), image)
        if "0000" in images:
            put(tmp_path / images.format(number).replace("0000", "0001"), image)
        put(tmp_path / masks.format(number), (labels > 0).astype(np.uint8))
    (declared,) = propose(tmp_path, {"organ": "brain"})
    assert declared.pairing == pairing
    samples = find_samples(tmp_path, (declared,))
    assert len(samples) == 18
    assert len({sample.patient for sample in samples}) == 3
    assert check_samples(tmp_path, samples, (declared,)) == []


DECLARED = Declaration("brain", "images", "masks", tumour="any")


def problems(root: Path) -> list[str]:
    return check_samples(root, find_samples(root, (DECLARED,)), (DECLARED,))


@pytest.mark.parametrize("wrong", ["shape", "place", "fraction", "nan", "cut", "4-D", "no mask", "picture"])
def test_what_is_wrong_with_a_volume_is_said_once(wrong: str, tmp_path: Path) -> None:
    image, labels = patient(1)
    mask, named = tmp_path / "masks/1.nii.gz", "masks/1.nii.gz"
    put(tmp_path / "images/1.nii.gz", image)
    put(mask, labels)
    assert problems(tmp_path) == []
    expected = {
        "shape": "has 40x48x5 voxels, expected 40x48x6 as 1.nii.gz",
        "place": "lies up to 7 mm elsewhere in the patient, expected the same affine as 1.nii.gz",
        "fraction": ", expected whole numbers",
        "nan": "holds NaN or infinity in slice [2]",
        "cut": "is compressed and damaged or cut off",
        "4-D": "has 4 axes (40x48x6x2), expected one volume of 3",
        "no mask": "has no mask, expected masks/1.nii.gz",
        "picture": "is a volume, expected a single image",
    }[wrong]
    if wrong == "shape":
        put(mask, labels[:, :, 1:])
    elif wrong == "place":
        moved = AFFINE.copy()
        moved[0, 3] = 7
        put(mask, labels, moved)
    elif wrong == "fraction":
        put(mask, (labels / 2).astype(np.float32) + (labels == 2) * np.float32(0.5))
    elif wrong == "cut":
        mask.write_bytes(mask.read_bytes()[:-30])
    elif wrong == "no mask":
        mask.unlink()
        (mask.parent / "2.txt").write_text("")
    elif wrong == "picture":
        from tumorseg_runtime.images.read import write_png

        write_png(tmp_path / "images/1.png", np.zeros((48, 40), np.uint8))
        (tmp_path / "images/1.nii.gz").unlink()
    else:
        named = "images/1.nii.gz"
        values = np.dstack([image] * 2).reshape(*SIDES, 2) if wrong == "4-D" else image.astype(np.float32)
        if wrong == "nan":
            values[3, 3, 2] = np.nan
        put(tmp_path / named, values)
    found = problems(tmp_path)
    if wrong == "no mask":
        named = "images/1.nii.gz"
    assert [expected in line for line in found] == [True], found
    assert named in found[0]


def test_hashes_follow_the_files_and_the_slice(tmp_path: Path) -> None:
    image, labels = patient(1)
    for number in (1, 2):
        put(tmp_path / f"images/{number}.nii", image)
        put(tmp_path / f"masks/{number}.nii", labels)
    first, second = (tmp_path / "images/1.nii[1]", tmp_path / "images/1.nii[2]")
    assert content_hash(first) != content_hash(second)
    assert content_hash(first) == content_hash(tmp_path / "images/2.nii[1]")
    assert same_content(first, content_hash(first))
    before = content_hash(first)
    put(tmp_path / "images/1.nii", image + 1)
    assert not same_content(first, before)
    assert not same_content(tmp_path / "images/9.nii[1]", before)


def test_equal_volumes_stay_together_and_empty_slices_join_nobody(tmp_path: Path) -> None:
    for number in range(1, 8):
        image, labels = patient(1 if number == 7 else number)
        image[:, :, 0] = 0  # air, in every patient
        labels[:, :, 0] = 0
        put(tmp_path / f"images/{number}.nii", image)
        put(tmp_path / f"masks/{number}.nii", labels)
    manifest = make_manifest(tmp_path, declared=(DECLARED,))
    groups = {item.image.partition("[")[0]: item.group for item in manifest.items}
    assert len(set(groups.values())) == 6
    assert groups["images/1.nii"] == groups["images/7.nii"]


@pytest.mark.slow
def test_slices_are_trained_on_and_judged_like_images(tiny_run: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tumorseg_train.data.loader import SplitDataset
    from tumorseg_train.evaluation.predictions import answer, torch_infer

    brats(tmp_path)
    manifest = make_manifest(tmp_path, declared=propose(tmp_path, {"tumour": "any", "organ": "brain"}))
    contract = tiny_run.contract
    training = SplitDataset(manifest, "train", contract)
    tensor, mask = training[3]
    assert tuple(tensor.shape) == (3, contract.height, contract.width)
    assert tuple(mask.shape) == (1, contract.height, contract.width)
    assert sum(float(training[n][1].sum()) for n in range(len(training))) > 0
    infer = torch_infer(tiny_run.model(), contract)
    (item, *_) = manifest.part("test")
    found = answer(infer, contract, manifest, item)
    assert found.truth.shape == (contract.height, contract.width)
    put(tmp_path / item.image.partition("[")[0], patient(9)[0])
    with pytest.raises(InputError, match="differs from the file of the split"):
        answer(infer, contract, manifest, item)
