from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tumorseg_export.references import folder_images
from tumorseg_export.references.folder_images import describe, open_images
from tumorseg_runtime.bundle.bundle import sha256_of
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.read import read_image, write_png
from tumorseg_train.data.phantoms import write_phantoms
from tumorseg_train.data.split import Manifest


def opened(where: Path | str, channels: int = 3) -> tuple[Manifest, list[str]]:
    said: list[str] = []
    with open_images(str(where), channels, said.append) as manifest:
        return manifest, said


def test_dataset_knows_organs_and_tumours(tiny_data: Path) -> None:
    manifest, said = opened(tiny_data)
    assert describe(str(tiny_data)) == "images of a dataset"
    kinds = Counter((item.organ, item.label, item.tumour_px > 0) for item in manifest.items)
    assert kinds == {
        ("brain", "tumour", True): 6, ("brain", "tumour", False): 2,
        ("breast", "benign", True): 3, ("breast", "normal", False): 3,
    }  # fmt: skip
    assert Counter(item.part for item in manifest.items) == {"test": 7, "val": 7}
    for item in manifest.items:
        assert item.files[item.image] == sha256_of(tiny_data / item.image)
    assert said == []


def test_colour_is_left_out_for_a_network_of_gray_and_said(tiny_data: Path) -> None:
    manifest, said = opened(tiny_data, channels=1)
    assert len(manifest.items) == 12
    assert all(read_image(tiny_data / item.image).ndim == 2 for item in manifest.items)
    assert said == ["2 colour images are left out: the network takes gray"]


def test_folder_without_a_layout_gives_its_images_apart_from_masks(tmp_path: Path) -> None:
    for name in ("a.png", "b/c.png", "a_mask.png", "a_mask_1.png", ".hidden.png", "images/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_png(tmp_path / name, np.zeros((40, 50), np.uint8))
    (tmp_path / "notes.txt").write_text("no image")
    manifest, _ = opened(tmp_path)
    assert [item.image for item in manifest.items] == ["a.png", "b/c.png", "images/d.png"]
    assert {(item.organ, item.label, item.height, item.width) for item in manifest.items} == {
        ("image", "unknown", 40, 50)
    }
    assert describe(str(tmp_path)) == "images of a folder, tumours unknown"


def test_many_images_are_looked_at_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_images, "LOOKED_AT", 3)
    for n in range(9):
        write_png(tmp_path / f"{n}.png", np.zeros((8, 8), np.uint8))
    assert [item.image for item in opened(tmp_path)[0].items] == ["0.png", "3.png", "6.png"]


def test_phantoms_are_drawn_on_purpose_and_go_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_images, "DRAWN", 3)
    assert describe("phantoms") == "phantoms, drawn for this export"
    with open_images("phantoms", 3, print) as manifest:
        assert {item.organ for item in manifest.items} == {"brain", "breast"}
        assert all((manifest.root / item.image).is_file() for item in manifest.items)
    assert not manifest.root.exists()


def test_word_and_folder_are_not_mixed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_phantoms(tmp_path / "phantoms", brain=1, breast=0)
    with pytest.raises(InputError, match=r"give \./phantoms for the folder"):
        describe("phantoms")
    assert describe("./phantoms") == "phantoms, from a folder"


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"DICM")
    with pytest.raises(InputError, match=r"holds no images, expected files of \.png"):
        opened(tmp_path)
    with pytest.raises(InputError, match="is not a folder, expected images, or the word phantoms"):
        describe(str(tmp_path / "absent"))
