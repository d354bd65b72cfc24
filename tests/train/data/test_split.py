from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tumorseg_runtime.core.errors import BundleError, InputError
from tumorseg_runtime.images.read import write_png
from tumorseg_train.data.split import PARTS, Manifest, make_manifest


def write_data(root: Path, *, tumours: int, empty: int = 0, normal: int = 0, copies: int = 0) -> Path:
    """Brain and normal breast images, so many; the first `copies` brain images are equal."""
    masks = [255] * tumours + [0] * empty
    for n, value in enumerate(masks):
        seed = 0 if n < copies else n
        image = np.random.default_rng(seed).integers(0, 256, (64, 80), dtype=np.uint8)
        mask = np.zeros_like(image)
        mask[4:9, 5:11] = value
        for name, pixels in (("images", image), ("masks", mask)):
            folder = root / "brain" / name
            folder.mkdir(parents=True, exist_ok=True)
            write_png(folder / f"slice{n}.png", pixels)
    for n in range(normal):
        folder = root / "breast" / "normal"
        folder.mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(1000 + n).integers(0, 256, (64, 80), dtype=np.uint8)
        write_png(folder / f"normal ({n}).png", image)
        write_png(folder / f"normal ({n})_mask.png", image * 0)
    return root


def sizes(manifest: Manifest) -> list[int]:
    return [len(manifest.part(part)) for part in PARTS]


def test_each_stratum_is_split_70_20_10(tmp_path: Path) -> None:
    manifest = make_manifest(write_data(tmp_path, tumours=20, empty=10, normal=10))
    assert sizes(manifest) == [28, 8, 4]
    strata = Counter((item.part, item.organ, item.tumour_px > 0) for item in manifest.items)
    assert [strata[part, "brain", True] for part in PARTS] == [14, 4, 2]
    assert [strata[part, "brain", False] for part in PARTS] == [7, 2, 1]
    assert [strata[part, "breast", False] for part in PARTS] == [7, 2, 1]


def test_items_say_what_the_files_are(tmp_path: Path) -> None:
    manifest = make_manifest(write_data(tmp_path, tumours=4))
    item = manifest.items[0]
    assert (item.image, item.masks) == ("brain/images/slice0.png", ("brain/masks/slice0.png",))
    assert (item.organ, item.label, item.height, item.width, item.tumour_px) == (
        "brain",
        "tumour",
        64,
        80,
        30,
    )
    assert item.files == {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in (item.image, *item.masks)
    }


def test_small_data_leaves_one_for_each_part(tmp_path: Path) -> None:
    assert sizes(make_manifest(write_data(tmp_path, tumours=3))) == [1, 1, 1]


def test_same_seed_same_split_another_seed_another(tmp_path: Path) -> None:
    write_data(tmp_path, tumours=30)
    first, again, other = (make_manifest(tmp_path, seed) for seed in (5, 5, 6))
    assert first.digest() == again.digest()
    assert [item.part for item in first.items] != [item.part for item in other.items]
    assert sizes(first) == sizes(other) == [21, 6, 3]


def test_order_of_the_file_system_and_names_play_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path, tumours=20)
    first = make_manifest(tmp_path)
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: sorted(listed(self), reverse=True))
    assert make_manifest(tmp_path).digest() == first.digest()
    monkeypatch.undo()
    for folder in ("images", "masks"):
        for n in range(20):
            (tmp_path / "brain" / folder / f"slice{n}.png").rename(
                tmp_path / "brain" / folder / f"z{99 - n}.png"
            )
    parts = [
        {item.files[item.image]: item.part for item in manifest.items}
        for manifest in (first, make_manifest(tmp_path))
    ]
    assert parts[0] == parts[1]


def test_a_changed_file_changes_the_digest(tmp_path: Path) -> None:
    write_data(tmp_path, tumours=5)
    before = make_manifest(tmp_path).digest()
    mask = np.zeros((64, 80), np.uint8)
    mask[4:9, 5:12] = 255
    write_png(tmp_path / "brain/masks/slice0.png", mask)
    assert make_manifest(tmp_path).digest() != before


@pytest.mark.parametrize("seed", range(6))
def test_equal_images_stay_together(tmp_path: Path, seed: int) -> None:
    manifest = make_manifest(write_data(tmp_path, tumours=20, copies=5), seed)
    names = tuple(f"brain/images/slice{n}.png" for n in range(5))
    assert len({item.part for item in manifest.items if item.image in names}) == 1
    assert [set(images) for images in manifest.copies()] == [set(names)]
    assert all(sizes(manifest))


@pytest.mark.parametrize(("tumours", "empty"), [(2, 0), (1, 5), (0, 9)])
def test_too_few_images_are_refused(tmp_path: Path, tumours: int, empty: int) -> None:
    write_data(tmp_path, tumours=tumours, empty=empty)
    with pytest.raises(
        InputError, match=rf"got {tumours + empty} images, {tumours} with a tumour in {tumours} .*add images"
    ):
        make_manifest(tmp_path)


def test_all_problems_are_in_one_error(tmp_path: Path) -> None:
    write_data(tmp_path, tumours=60)
    for n in range(52):
        (tmp_path / "brain" / "masks" / f"slice{n}.png").unlink()
    with pytest.raises(InputError) as caught:
        make_manifest(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tmp_path}: 52 problem(s) in 60 images:"
    assert len(lines) == 2  # one fault of 52 files is one line
    assert "52 files (slice0.png, slice1.png, slice10.png, ...): have no masks in brain/masks" in lines[1]


def test_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="seed is -1"):
        make_manifest(write_data(tmp_path, tumours=3), seed=-1)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    manifest = make_manifest(write_data(tmp_path, tumours=6, normal=3))
    path = tmp_path / "split.json"
    manifest.write(path)
    read = Manifest.read(path, tmp_path)
    assert read == manifest
    assert read.digest() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(tmp_path) not in path.read_text()
    assert not list(tmp_path.glob("*.part"))
    assert make_manifest(tmp_path).digest() == read.digest()  # the split's own file changes nothing


@pytest.mark.parametrize("text", ["no json", "{}", '{"schema": 99, "seed": 0, "items": []}', "[]"])
def test_what_is_no_split_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(BundleError, match=r"split\.json"):
        Manifest.read(path, tmp_path)


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_item_without_the_hash_of_its_image_or_mask_is_refused(tmp_path: Path, kind: str) -> None:
    manifest = make_manifest(write_data(tmp_path, tumours=4))
    path = tmp_path / "split.json"
    manifest.write(path)
    values = json.loads(path.read_text())
    item = values["items"][1]
    name = item["image"] if kind == "image" else item["masks"][0]
    del item["files"][name]
    path.write_text(json.dumps(values))
    with pytest.raises(BundleError) as caught:
        Manifest.read(path, tmp_path)
    assert f"{item['image']} has no SHA-256 of {name} (1 such files), expected one" in str(caught.value)
    for files in ([], None, {name: 3}):
        item["files"] = files
        path.write_text(json.dumps(values))
        with pytest.raises(BundleError, match=r"split\.json"):
            Manifest.read(path, tmp_path)


def test_neighbouring_slices_stay_together_and_a_random_split_parts_them(tmp_path: Path) -> None:
    write_data(tmp_path, tumours=300)
    for folder in ("images", "masks"):
        for path in (tmp_path / "brain" / folder).iterdir():
            path.rename(path.with_name(path.name.removeprefix("slice")))
    manifest = make_manifest(tmp_path)
    assert {item.group_kind for item in manifest.items} == {"slices"}
    assert manifest.straddling() == []
    assert all(
        abs(size - 300 * share) <= 12 for size, share in zip(sizes(manifest), (0.7, 0.2, 0.1), strict=True)
    )
    blocks: dict[str, list[int]] = {}
    for item in manifest.items:
        blocks.setdefault(item.group, []).append(int(Path(item.image).stem))
    assert all(sorted(block) == list(range(min(block), max(block) + 1)) for block in blocks.values())
    assert all(20 <= len(block) <= 41 for block in sorted(blocks.values())[:-1])
    random = make_manifest(tmp_path, method="random")
    assert random.method == "random"
    assert sizes(random) == [210, 60, 30]
    assert len(random.straddling()) == len(blocks)
    assert random.digest() != manifest.digest()


def test_folds_are_each_the_test_part_once(tmp_path: Path) -> None:
    write_data(tmp_path, tumours=40, normal=20, copies=5)
    folds = [make_manifest(tmp_path, folds=4, fold=n) for n in range(4)]
    tests = [{item.image for item in manifest.part("test")} for manifest in folds]
    assert sorted(image for images in tests for image in images) == sorted(
        item.image for item in folds[0].items
    )
    assert [len(images) for images in tests] == [15, 15, 15, 15]
    for n, manifest in enumerate(folds):
        assert {item.image for item in manifest.part("val")} == tests[(n + 1) % 4]
        assert manifest.straddling() == []
        assert (manifest.folds, manifest.fold) == (4, n)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"method": "other"}, "split is 'other', expected 'grouped' or 'random'"),
        ({"folds": 2}, "folds is 2, expected 3 or more"),
        ({"folds": 3, "fold": 3}, "fold is 3 of 3, expected 0 to 2"),
        ({"fold": 1}, "fold is 1 of 0, expected 0 to 0"),
    ],
)
def test_a_split_that_cannot_be_is_refused(tmp_path: Path, choice: dict[str, Any], message: str) -> None:
    write_data(tmp_path, tumours=6)
    with pytest.raises(InputError, match=message):
        make_manifest(tmp_path, **choice)


def test_a_split_of_schema_1_keeps_its_bytes(tmp_path: Path) -> None:
    manifest = make_manifest(write_data(tmp_path, tumours=6))
    values = json.loads(manifest.to_text())
    for name in ("method", "folds", "fold"):
        del values[name]
    values["schema"] = 1
    for item in values["items"]:
        del item["group"], item["group_kind"]
    path = tmp_path / "split.json"
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    old = Manifest.read(path, tmp_path)
    assert old.digest() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (old.method, old.items[0].group) == ("unknown", "")
    assert old.straddling() == []
