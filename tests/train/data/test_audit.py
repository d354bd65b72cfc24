from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from tumorseg_runtime.core.errors import BundleError
from tumorseg_runtime.images.read import write_png
from tumorseg_train.commands.data import data
from tumorseg_train.data.audit import audit_data
from tumorseg_train.data.near_duplicates import alike, fingerprint_of, similarity
from tumorseg_train.data.split import make_manifest


def scene(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    """A picture of its own: blobs of some sizes, uint8 (height, width)."""
    noise = np.random.default_rng(seed).normal(size=(240, 320)).astype(np.float32)
    blobs = cv2.GaussianBlur(noise, (0, 0), 4) * 4 + cv2.GaussianBlur(noise, (0, 0), 12) * 20
    return cv2.resize(np.clip(blobs * 60 + 110, 0, 255).astype(np.uint8), (width, height))


def write(root: Path, label: str, n: int, image: np.ndarray, masks: int = 1) -> str:
    folder = root / "breast" / label
    folder.mkdir(parents=True, exist_ok=True)
    write_png(folder / f"{label} ({n}).png", image)
    for m in range(masks):
        mask = np.zeros(image.shape[:2], np.uint8)
        mask[20 + 30 * m : 40 + 30 * m, 30 : 60 + n] = 255 * (label != "normal")
        write_png(folder / f"{label} ({n})_mask{f'_{m}' if m else ''}.png", mask)
    return f"breast/{label}/{label} ({n}).png"


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for n in range(1, 13):
        write(root, "benign" if n % 2 else "malignant", n, scene(n), masks=2 if n == 5 else 1)
    for n in range(1, 4):
        write(root, "normal", n, scene(100 + n))
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(data, ["audit", *(str(argument) for argument in arguments)])


def test_copies_of_a_scene_are_alike_and_strangers_are_not() -> None:
    one = scene(1)
    smaller = cv2.resize(one, (111, 87), interpolation=cv2.INTER_AREA)
    brighter = np.clip(one.astype(float) * 0.7 + 60, 0, 255).astype(np.uint8)
    cropped = one[8:, 6:154]
    noisy = np.clip(one + np.random.default_rng(0).normal(0, 6, one.shape), 0, 255).astype(np.uint8)
    coloured = np.repeat(one[:, :, None], 3, axis=2)
    for other in (smaller, brighter, noisy, coloured):
        assert similarity(fingerprint_of(one), fingerprint_of(other)) > 0.9
    assert similarity(fingerprint_of(one), fingerprint_of(cropped)) > 0.5
    fingerprints = [fingerprint_of(image) for image in (one, scene(2), smaller, scene(3), cropped)]
    assert [pair[:2] for pair in alike(fingerprints, 0.5)] == [(0, 2), (0, 4), (2, 4)]
    assert max(similarity(fingerprints[0], fingerprint_of(scene(seed))) for seed in range(2, 30)) < 0.3


def test_even_images_are_like_nothing() -> None:
    even = fingerprint_of(np.full((50, 60), 90, np.uint8))
    assert similarity(even, even) == 0
    assert alike([], 0.5) == []


def test_sound_data_passes(sound: Path, tmp_path: Path) -> None:
    result = run(sound, "--out", tmp_path / "new" / "audit.html", "--json")
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert (values["images"], values["sound_images"], values["worthless"]) == (15, 15, [])
    assert values["near_duplicates"] == values["coloured_among_gray"] == values["problems"] == []
    assert list(values["several_masks"]) == ["breast/benign/benign (5).png"]
    assert values["sizes"] == [{"organ": "breast", "height": 120, "width": 160, "images": 15}]
    assert values["without_tumour"] == [{"organ": "breast", "class": "normal", "images": 3}]
    benign = values["lesion_share_of_image"][0]
    assert (benign["class"], benign["images"]) == ("benign", 6)
    assert benign["min"] == pytest.approx(20 * 31 / (120 * 160), abs=1e-6)
    html = (tmp_path / "new" / "audit.html").read_text()
    assert "benign (5).png" in html
    assert html.count("data:image/jpeg") == 1
    assert not re.findall(r"(?:src|href)=[\"'](?!data:|#)", html)


def test_duplicates_conflicts_and_colour_are_found(sound: Path, tmp_path: Path) -> None:
    again = write(sound, "malignant", 20, cv2.resize(scene(1), (150, 110), interpolation=cv2.INTER_AREA))
    copy = write(sound, "benign", 21, scene(3))
    tinted = np.stack([scene(50), scene(50) // 2, scene(50)], axis=2)
    colour = write(sound, "benign", 22, tinted)
    found = audit_data(sound)
    assert {(pair.first, pair.second) for pair in found.pairs if pair.conflicting} == {
        ("breast/benign/benign (1).png", again)
    }
    assert [(pair.first, pair.second) for pair in found.pairs if pair.same_bytes] == [
        (copy, "breast/benign/benign (3).png")
    ]
    assert found.clusters() == [
        ("breast/benign/benign (1).png", again), (copy, "breast/benign/benign (3).png")
    ]  # fmt: skip
    assert found.coloured() == [colour]
    assert found.worthless() == ["1 pair(s) show one scene in two classes: take out what is wrong"]
    result = run(sound, "--out", tmp_path / "audit.html")
    assert result.exit_code == 1
    assert "1 pairs of one scene in two classes" in result.output
    assert "WORTHLESS: 1 pair(s)" in result.output
    assert (tmp_path / "audit.html").read_text().count("data:image/jpeg") == 1 + 2 + 1 + 1


def test_broken_files_fail_the_audit_and_the_rest_is_still_shown(sound: Path, tmp_path: Path) -> None:
    folder = sound / "breast" / "benign"
    (folder / "benign (1).png").write_bytes(b"no image")
    write_png(folder / "benign (3)_mask.png", np.zeros((9, 9), np.uint8))
    (folder / "benign (7)_mask.png").unlink()
    write_png(folder / "benign (9)_mask.png", np.zeros((120, 160), np.uint8))
    result = run(sound, "--json", "--out", tmp_path / "audit.html")
    assert result.exit_code == 1
    values = json.loads(result.stdout)
    kinds = {problem["file"].split("benign ")[1]: problem["kind"] for problem in values["problems"]}
    assert kinds == {
        "(1).png": "unreadable", "(3)_mask.png": "mismatched", "(7).png": "mismatched", "(9).png": "empty"
    }  # fmt: skip
    assert values["worthless"] == [
        "1 problem(s): unreadable", "2 problem(s): mismatched", "1 problem(s): empty"
    ]  # fmt: skip
    assert values["sound_images"] == 11
    assert "benign (9).png: is benign, but its masks are empty" in (tmp_path / "audit.html").read_text()


def test_a_split_with_neighbours_across_it_fails(sound: Path, tmp_path: Path) -> None:
    for n in range(30, 34):
        write(sound, "benign", n, scene(1)[: 120 - n // 8])
    path = tmp_path / "split.json"
    grouped = make_manifest(sound)
    grouped.write(path)
    assert run(sound, "--split", path).exit_code == 0
    twin = next(item for item in grouped.items if item.image.endswith("(31).png"))
    other = "test" if twin.part != "test" else "train"
    items = [dataclasses.replace(item, part=other) if item == twin else item for item in grouped.items]
    dataclasses.replace(grouped, items=tuple(items)).write(path)
    result = run(sound, "--split", path, "--json", "--out", tmp_path / "audit.html")
    assert result.exit_code == 1
    values = json.loads(result.stdout)
    (leak,) = values["split"]["leaks"]
    assert leak["group"]["kind"] == "near-duplicates"
    assert len(leak["images"]) == 5
    assert leak["images"][twin.image] == other
    assert "1 group(s) across the parts" in values["worthless"][0]
    # without the manifest's own groups, the images still tell
    anonymous = [dataclasses.replace(item, group="", group_kind="") for item in items]
    dataclasses.replace(grouped, items=tuple(anonymous)).write(path)
    assert run(sound, "--split", path).exit_code == 1


def test_a_split_of_other_files_fails(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    make_manifest(sound).write(path)
    write(sound, "normal", 1, scene(777))
    (sound / "breast" / "normal" / "normal (2).png").unlink()
    (sound / "breast" / "normal" / "normal (2)_mask.png").unlink()
    check = audit_data(sound, path).split
    assert check is not None
    assert check.changed == ("breast/normal/normal (1).png",)
    assert check.missing == ("breast/normal/normal (2).png",)
    result = run(sound, "--split", path)
    assert result.exit_code == 1
    assert "WORTHLESS: 2 file(s) of" in result.output


def test_what_is_no_split_is_refused(sound: Path, tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text("{}")
    with pytest.raises(BundleError, match="is no split"):
        audit_data(sound, tmp_path / "split.json")
