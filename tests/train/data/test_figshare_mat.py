from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.read import to_uint8
from tumorseg_train.data.checks import check_samples
from tumorseg_train.data.datasets import Sample, find_samples, read_pair
from tumorseg_train.data.split import PARTS, Manifest, make_manifest
from tumorseg_train.layouts.figshare_mat import read_origin, read_slice_image, read_slice_mask
from tumorseg_train.layouts.known import unread_folders

h5py = pytest.importorskip("h5py", reason="h5py comes with tumorseg[train]")
HEIGHT, WIDTH = 48, 40


def matlab(path: Path, **changed: Any) -> dict[str, Any]:
    """A slice as MATLAB 7.3 writes it, transposed; `changed` fields, None to leave one out."""
    seed = int(path.stem) if path.stem.isdigit() else 0
    image = np.random.default_rng(seed).integers(-30, 2500, (HEIGHT, WIDTH)).astype(np.int16)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:15, 20:36] = 1
    fields = {"image": image, "tumorMask": mask, "label": np.array([[2.0]]), "PID": "100360", **changed}
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group("cjdata")
        for name, value in fields.items():
            if isinstance(value, str):
                value = np.array([[ord(letter)] for letter in value], np.uint16)
            if value is not None:
                group[name] = np.asarray(value).T if name in ("image", "tumorMask") else value
    return fields


def test_a_slice_is_read_as_it_is_seen_in_matlab(tmp_path: Path) -> None:
    fields = matlab(tmp_path / "7.mat")
    image = read_slice_image(tmp_path / "7.mat")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, to_uint8(fields["image"]))
    assert (image.min(), image.max()) == (0, 255)
    np.testing.assert_array_equal(read_slice_mask(tmp_path / "7.mat"), fields["tumorMask"])
    assert read_origin(tmp_path / "7.mat") == ("glioma", "100360")


@pytest.mark.parametrize(("label", "name"), [(1, "meningioma"), (2.0, "glioma"), (3, "pituitary")])
def test_the_three_classes(tmp_path: Path, label: float, name: str) -> None:
    matlab(tmp_path / "1.mat", label=np.array([[label]]), PID="MR017260F")
    assert read_origin(tmp_path / "1.mat") == (name, "MR017260F")


def test_the_folder_is_a_dataset_with_classes_and_patients(tmp_path: Path) -> None:
    folder = tmp_path / "brain" / "brainTumorDataPublic_1-766"
    fields = matlab(folder / "1.mat", label=np.array([[1.0]]), PID="a1")
    matlab(tmp_path / "brain" / "2.mat", PID="b2")
    matlab(tmp_path / "brain" / "cvind.mat")
    samples = find_samples(tmp_path)
    name = "brain/brainTumorDataPublic_1-766/1.mat"
    assert samples == [
        Sample("brain/2.mat", ("brain/2.mat",), "brain", "glioma", "b2"),
        Sample(name, (name,), "brain", "meningioma", "a1"),
    ]
    assert check_samples(tmp_path, samples) == []
    assert unread_folders(tmp_path) == []
    image, mask = read_pair(tmp_path, samples[1])
    np.testing.assert_array_equal(image, to_uint8(fields["image"]))
    np.testing.assert_array_equal(mask, fields["tumorMask"] > 0)


def test_patients_never_cross_the_split(tmp_path: Path) -> None:
    for n in range(1, 61):  # every patient's slices are far apart in numbers
        matlab(tmp_path / f"{n}.mat", label=np.array([[1.0 + n % 2]]), PID=f"p{n % 20}")
    manifest = make_manifest(tmp_path)
    assert {item.group_kind for item in manifest.items} == {"patient"}
    assert len({item.group for item in manifest.items}) == 20
    assert manifest.straddling() == []
    assert [len(manifest.part(part)) for part in PARTS] == [42, 12, 6]
    groups = {int(Path(item.image).stem) % 20: item.group for item in manifest.items}
    assert all(groups[int(Path(item.image).stem) % 20] == item.group for item in manifest.items)
    manifest.write(tmp_path / "split.json")
    assert Manifest.read(tmp_path / "split.json", tmp_path) == manifest
    assert len(make_manifest(tmp_path, method="random").straddling()) > 10


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": np.array([[4.0]])}, r"3\.mat: cjdata/label is 4\.0, expected one of 1 \(meningioma\), "),
        ({"label": None}, r"3\.mat: has no cjdata/label"),
        ({"PID": None}, r"3\.mat: has no cjdata/PID"),
        ({"PID": np.zeros((0, 1), np.uint16)}, r"3\.mat: cjdata/PID is no text"),
        ({"image": None}, r"3\.mat: has no cjdata/image"),
        ({"image": np.zeros((2, 3, 4), np.int16)}, r"3\.mat: cjdata/image is int16 \(4, 3, 2\), expected"),
        ({"image": np.zeros((4, 4))}, r"3\.mat: cjdata/image is float64 \(4, 4\), expected integers"),
        ({"tumorMask": np.full((48, 40), 300, np.int16)}, r"3\.mat: cjdata/tumorMask holds 300 to 300"),
        ({"tumorMask": np.eye(8, 9, dtype=np.uint8)}, r"3\.mat: has 9x8 pixels, expected 40x48"),
        ({"tumorMask": np.zeros((48, 40), np.uint8)}, r"3\.mat: is glioma, but its masks are empty"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    matlab(tmp_path / "3.mat", **changed)
    samples = find_samples(tmp_path)
    problems = check_samples(tmp_path, samples)
    assert len(problems) == 1
    assert "\n" not in problems[0]
    with pytest.raises(InputError, match=message):
        raise InputError(problems[0])


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file, Platform: PCWIN64", None])
def test_another_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "3.mat"
    if content is None:  # cut off
        matlab(path)
        path.write_bytes(path.read_bytes()[:3000])
    else:
        path.write_bytes(content)
    (problem,) = check_samples(tmp_path, find_samples(tmp_path))
    assert problem.startswith("3.mat: cannot be read as HDF5 (")
    assert "expected a MATLAB 7.3 file" in problem


def test_without_h5py_the_line_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matlab(tmp_path / "3.mat")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"needs h5py, .*pip install 'tumorseg\[train\]'"):
        read_slice_image(tmp_path / "3.mat")
