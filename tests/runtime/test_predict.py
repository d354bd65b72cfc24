from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result

from tumorseg_runtime import Bundle, Contract, Lesion, Prediction
from tumorseg_runtime.commands.predict import describe, list_images, predict, unique_names
from tumorseg_runtime.errors import CheckFailedError, InputError
from tumorseg_runtime.images import read_image, write_png

Scene = Callable[..., npt.NDArray[np.uint8]]
Maker = Callable[..., Path]


def run(*args: object) -> Result:
    return CliRunner().invoke(predict, [str(arg) for arg in args])


@pytest.fixture
def folder(tmp_path: Path, scene: Scene) -> Path:
    """Two images of one name, and one in colour."""
    root = tmp_path / "in"
    for name, size, colour in (
        ("a/1.png", (70, 50), False),
        ("b/1.png", (40, 90), False),
        ("b/2.png", (64, 64), True),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(root / name, scene(*size, colour=colour, seed=5))
    return root


def files_in(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_masks_overlays_and_json(small_bundle: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    result = run(small_bundle, folder, "--out", out)
    assert result.exit_code == 0, result.output
    names = ["a__1", "b__1", "b__2"]
    assert files_in(out) == [f"{kind}/{n}.png" for kind in ("masks", "overlays") for n in names] + [
        "predictions.json"
    ]
    report = json.loads((out / "predictions.json").read_text())
    assert report["bundle"] == {"name": "tiny", "sha256": Bundle.open(small_bundle).digest()}
    assert report["session"]["backend"] == "onnxruntime"
    assert report["failed"] == []
    for entry, size in zip(report["images"], ((70, 50), (40, 90), (64, 64)), strict=True):
        mask = read_image(out / entry["masks"]["tumour"])
        assert mask.shape == size == (entry["height"], entry["width"])
        assert set(np.unique(mask)) == {0, 255}
        assert np.count_nonzero(mask) == sum(lesion["area_px"] for lesion in entry["lesions"])
        picture, image = read_image(out / entry["overlay"]), read_image(entry["image"])
        assert picture.shape == (*size, 3)
        colour = image if image.ndim == 3 else np.dstack([image] * 3)
        assert (picture != colour).any()
        assert (picture == colour).all(axis=2).sum() > np.count_nonzero(mask == 0) * 0.8
    assert "3 images -> " in result.output
    assert "a/1.png (50x70): " in result.output


def test_json_on_standard_output(small_bundle: Path, folder: Path, tmp_path: Path) -> None:
    result = run(small_bundle, folder / "a/1.png", "--out", tmp_path / "out", "--json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "out/predictions.json").read_text())


def test_a_bad_file_is_listed_and_does_not_stop_the_rest(
    small_bundle: Path, folder: Path, tmp_path: Path
) -> None:
    (folder / "a/0.png").write_bytes(b"not an image")
    result = run(small_bundle, folder, folder.parent / "gone.png", "--out", tmp_path / "out")
    assert isinstance(result.exception, CheckFailedError)
    assert str(result.exception).startswith("2 of 5 files could not be segmented")
    report = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [Path(entry["image"]).name for entry in report["failed"]] == ["0.png", "gone.png"]
    assert "expected a PNG" in report["failed"][0]["error"]
    assert len(report["images"]) == 3
    assert len(files_in(tmp_path / "out/masks")) == 3


def test_colour_for_a_gray_network_and_broken_logits_are_listed_too(
    make_bundle: Maker, folder: Path, tmp_path: Path
) -> None:
    contract = Contract(height=64, width=64, mean=(0.485,), std=(0.229,))
    result = run(make_bundle(tmp_path / "gray", contract), folder, "--out", tmp_path / "out")
    assert isinstance(result.exception, CheckFailedError)
    report = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [Path(entry["image"]).name for entry in report["failed"]] == ["2.png"]
    assert "network takes gray" in report["failed"][0]["error"]
    write_png(folder / "white.png", np.full((30, 30), 255, np.uint8))
    result = run(make_bundle(tmp_path / "poison", poison=True), folder, "--out", tmp_path / "out2")
    report = json.loads((tmp_path / "out2/predictions.json").read_text())
    assert [Path(entry["image"]).name for entry in report["failed"]] == ["white.png"]
    assert "not finite" in report["failed"][0]["error"]
    assert not (tmp_path / "out2/masks/white.png").exists()


def test_several_classes_have_a_folder_each(make_bundle: Maker, folder: Path, tmp_path: Path) -> None:
    contract = Contract(height=64, width=64, classes=("core", "rest"))
    result = run(make_bundle(tmp_path / "bundle", contract), folder / "a", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert files_in(tmp_path / "out/masks") == ["core/1.png", "rest/1.png"]


def test_a_name_that_is_not_utf8(small_bundle: Path, scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"scan \xff.png")
    write_png(path, scene(30, 30))
    result = run(small_bundle, path, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out/predictions.json").read_text())
    assert report["images"][0]["image"] == str(path)


def test_pictures_are_never_written_among_the_images(
    small_bundle: Path, folder: Path, tmp_path: Path
) -> None:
    for files, out in (([folder], folder), ([folder], folder / "deep/out"), ([tmp_path], tmp_path / "out")):
        result = run(small_bundle, *files, "--out", out)
        assert isinstance(result.exception, InputError)
        assert "expected them apart" in str(result.exception)
    assert run(small_bundle, folder, "--out", tmp_path / "out").exit_code == 0
    result = run(small_bundle, tmp_path / "out/masks/a__1.png", "--out", tmp_path / "out")
    assert "expected them apart" in str(result.exception)


def test_names_tell_files_apart(tmp_path: Path) -> None:
    def names(*paths: str) -> list[str]:
        return unique_names([tmp_path / path for path in paths])

    assert names("a/1.png", "a/2.png") == ["1", "2"]
    assert names("a/1.png", "b/1.png", "b/2.png") == ["a__1", "b__1", "b__2"]
    assert names("a/1.png", "a/1.jpg", "a/2.png") == ["1.png", "1.jpg", "2.png"]
    assert names("x/1.png", "x/1.jpg", "y/1.png") == ["x__1.png", "x__1.jpg", "y__1.png"]
    assert names("a.b.png", "a.c.png") == ["a.b", "a.c"]
    assert not any("/" in name for name in names("a/1.png", "1.png", "../1.png", "../../1.png"))
    with pytest.raises(InputError, match="differ only in case or in '__'"):
        names("a__b/c.png", "a/b__c.png", "c.png")
    with pytest.raises(InputError, match="was given twice"):
        names("a/1.png", "a/../a/1.png")
    with pytest.raises(InputError, match="differ only in case"):
        names("a/Scan.png", "a/scan.png")


def test_listing(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("x")
    (folder / "d.png").mkdir()
    write_png(folder / "C.PNG", np.zeros((4, 4), np.uint8))
    found = list_images((folder, tmp_path / "named.dcm"))
    assert found == [folder / n for n in ("C.PNG", "a/1.png", "b/1.png", "b/2.png")] + [
        tmp_path / "named.dcm"
    ]
    with pytest.raises(InputError, match="holds no images"):
        list_images((folder / "d.png",))


def test_a_line_names_the_largest_lesions(scene: Scene) -> None:
    def lesion(area: int) -> Lesion:
        return Lesion("tumour", area, (0, 0, 1, 1), (0.0, 0.0), ())

    empty = Prediction("a.png", scene(4, 6), np.zeros((1, 4, 6), bool), ())
    assert describe(empty) == "a.png (6x4): no lesion"
    two = dataclasses.replace(empty, lesions=(lesion(9), lesion(2)))
    assert describe(two) == "a.png (6x4): 2 lesion(s): tumour 9 px, tumour 2 px"
    five = dataclasses.replace(empty, lesions=tuple(map(lesion, (5, 4, 9, 8, 7))))
    assert describe(five) == "a.png (6x4): 5 lesion(s): tumour 9 px, tumour 8 px, tumour 7 px, 2 smaller"
