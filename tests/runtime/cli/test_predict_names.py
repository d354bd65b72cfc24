"""What `tumorseg predict` takes as images, how it names outputs, and its line about each image."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime import Contract, Lesion, Prediction
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.frame import Frame
from tumorseg_runtime.images.read import write_png
from tumorseg_runtime.outputs.descriptions import describe
from tumorseg_runtime.outputs.image_files import list_images, unique_names
from tumorseg_runtime.outputs.image_results import Outputs, make_line

Scene = Callable[..., npt.NDArray[np.uint8]]


def test_names_tell_files_apart(tmp_path: Path) -> None:
    def names(*paths: str) -> list[str]:
        return unique_names([tmp_path / path for path in paths])

    assert names("a/1.png", "a/2.png") == ["1", "2"]
    assert names("a/1.png", "b/1.png", "b/2.png") == ["a__1", "b__1", "2"]
    assert names("a/1.png", "a/1.jpg", "a/2.png") == ["1.png", "1.jpg", "2"]
    assert names("x/1.png", "x/1.jpg", "y/1.png") == ["1.png", "1.jpg", "y__1"]
    assert names("a.b.png", "a.c.png") == ["a.b", "a.c"]
    assert not any("/" in name for name in names("a/1.png", "1.png", "../1.png", "../../1.png"))
    assert len(set(names("a__b/c.png", "a/b__c.png", "c.png"))) == 3
    with pytest.raises(InputError, match="was given twice"):
        names("a/1.png", "a/../a/1.png")
    upper, lower = names("a/Scan.png", "a/scan.png")  # the same name on some disks
    assert re.fullmatch(r"Scan\.png-[0-9a-f]{8}", upper)
    assert upper.casefold() != lower.casefold()


def test_long_names_are_cut_and_get_a_hash(tmp_path: Path) -> None:
    long = "x" * 245
    one, two, three = unique_names([tmp_path / f"{long}a.png", tmp_path / f"{long}b.png", tmp_path / "c.png"])
    assert len(one) == len(two) == 180
    assert one != two
    assert three == "c"
    (umlauts,) = unique_names([tmp_path / ("ä" * 120 + ".png")])
    assert len(umlauts.encode()) <= 180


def test_clashes_are_told_and_names_of_an_earlier_run_stay(tmp_path: Path) -> None:
    lines: list[str] = []
    a, b, c = (tmp_path / name for name in ("a/1.png", "b/1.png", "b/2.png"))
    assert unique_names([a, b, c], {str(a): "1"}, lines.append) == ["1", "b__1", "2"]
    assert unique_names([b], {str(a): "1"}) == ["b__1"]
    whole = unique_names([a, b, c])
    for done in range(3):  # a run that was broken off names the rest as it would have
        earlier = dict(zip(map(str, (a, b, c)), whole[:done], strict=False))
        assert unique_names([a, b, c], earlier) == whole
    assert lines == [f"2 files share names with others, their outputs get longer ones: {a}, {b}"]


def test_listing(image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "notes.txt").write_text("x")
    (image_folder / "d.png").mkdir()
    write_png(image_folder / "C.PNG", np.zeros((4, 4), np.uint8))
    found = list_images((image_folder, tmp_path / "named.dcm"))
    assert found == [image_folder / n for n in ("C.PNG", "a/1.png", "b/1.png", "b/2.png")] + [
        tmp_path / "named.dcm"
    ]
    lines: list[str] = []
    (image_folder / "photo.HEIC").write_bytes(b"ftyp")
    assert list_images((image_folder,), log=lines.append) == found[:-1]
    assert lines == [
        f"{image_folder}: skipped images of kinds that are not read: 1 .heic; convert them to PNG"
    ]
    with pytest.raises(InputError, match="holds no images"):
        list_images((image_folder / "d.png",))


def test_a_line_names_the_largest_lesions(scene: Scene) -> None:
    def lesion(area: int) -> Lesion:
        return Lesion("tumour", area, (0, 0, 1, 1), (0.0, 0.0), ())

    frame, contract = Frame("a.png", scene(4, 6)), Contract(height=64, width=64)
    logits = np.zeros((1, 64, 64), np.float32)
    empty = Prediction(frame, np.zeros((1, 4, 6), bool), (), logits, contract, None)
    assert describe(empty) == "a.png (6x4): no lesion"
    two = dataclasses.replace(empty, lesions=(lesion(9), lesion(2)))
    assert describe(two) == "a.png (6x4): 2 lesion(s): tumour 9 px, tumour 2 px"
    five = dataclasses.replace(empty, lesions=tuple(map(lesion, (5, 4, 9, 8, 7))))
    assert describe(five) == "a.png (6x4): 5 lesion(s): tumour 9 px, tumour 8 px, tumour 7 px, 2 smaller"


def test_a_frame_never_overwrites_another_files_mask(tmp_path: Path, scene: Scene) -> None:
    result = SimpleNamespace(
        prediction=SimpleNamespace(frame=Frame("in.dcm[0]", scene(4, 4), (), 0, 2)), name="in.dcm[0]"
    )
    outputs = Outputs(tmp_path, overlays=False, probabilities=False)
    line = make_line(result, Path("in.dcm"), "in", outputs, {"in[0]", "in"})  # type: ignore[arg-type]
    assert "its outputs would be named in[0], like another file's" in line["error"]
