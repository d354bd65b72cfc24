from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_train.data import phantoms
from tumorseg_train.data.checks import check_samples
from tumorseg_train.data.datasets import find_samples, read_pair
from tumorseg_train.data.phantoms import draw_brain, draw_breast, ensure_data, write_phantoms


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantoms") / "data"
    write_phantoms(root, brain=12, breast=12, seed=3)
    return root


@pytest.mark.slow
def test_same_seed_same_bytes_and_more_images_never_change_the_first(drawn: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "few", brain=4, breast=5, seed=3)
    few, many = digests(tmp_path / "few"), digests(drawn)
    del few["PHANTOMS.txt"]
    assert few == {name: many[name] for name in few}
    assert len(few) >= 2 * 9


def test_another_seed_gives_other_images(drawn: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "other", brain=2, breast=2, seed=4)
    other, first = digests(tmp_path / "other"), digests(drawn)
    images = [name for name in other if name.endswith(".png") and "mask" not in name]
    assert len(images) == 4
    assert not any(other[name] == first[name] for name in images)


def test_they_are_sound_in_the_real_layouts(drawn: Path) -> None:
    samples = find_samples(drawn)
    assert check_samples(drawn, samples) == []
    labels = [sample.label for sample in samples]
    assert {label: labels.count(label) for label in set(labels)} == {
        "tumour": 12, "benign": 6, "malignant": 4, "normal": 2,
    }  # fmt: skip
    pairs = [read_pair(drawn, sample) for sample in samples]
    assert len({image.shape for image, _ in pairs}) >= 4
    assert any(image.shape[0] > image.shape[1] for image, _ in pairs)
    empty = [sample for sample, (_, mask) in zip(samples, pairs, strict=True) if not mask.any()]
    assert sorted(sample.label for sample in empty) == ["normal", "normal", "tumour", "tumour"]
    several = [sample for sample in samples if len(sample.masks) > 1]
    assert several
    assert several[0].masks[1].endswith("_mask_1.png")


def test_folder_says_that_they_are_phantoms(drawn: Path) -> None:
    text = (drawn / "PHANTOMS.txt").read_text()
    assert "phantoms" in text
    assert "seed 3, 12 brain, 12 breast" in text


@pytest.mark.parametrize("draw", [draw_brain, draw_breast])
@pytest.mark.parametrize("size", [(512, 512), (471, 500), (640, 450)])
def test_number_and_size_of_lesions(draw, size: tuple[int, int]) -> None:
    for count in (0, 1, 2, 3):
        image, mask = draw(np.random.default_rng([count, *size]), size, count)
        assert image.shape == mask.shape == size
        assert (image.dtype, mask.dtype) == (np.uint8, np.bool_)
        number, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        assert number - 1 == count
        unit = min(size) / 512
        radii = np.sqrt(stats[1:, cv2.CC_STAT_AREA] / np.pi) / unit
        assert ((radii > 14) & (radii < 66)).all()


def test_benign_is_brighter_behind_and_malignant_darker() -> None:
    behind = []
    for malignant in (False, True):
        ratios = []
        for seed in range(12):
            image, mask = draw_breast(np.random.default_rng(seed), (512, 512), 1, malignant=malignant)
            rows, columns = np.nonzero(mask)
            bottom, left, right = int(rows.max()) + 12, int(columns.min()), int(columns.max())
            width, middle = right - left, (left + right) // 2
            band = image[bottom : bottom + 40].astype(float)
            beside = np.r_[
                band[:, max(0, left - width) : left - 12].ravel(), band[:, right + 12 : right + width].ravel()
            ]
            ratios.append(band[:, middle - width // 5 : middle + width // 5].mean() / beside.mean())
        behind.append(np.median(ratios))
    assert behind[0] > 1.1
    assert behind[1] < 0.85


def test_too_many_lesions_are_refused() -> None:
    with pytest.raises(InputError, match="30 lesions do not fit an image of 512x512"):
        draw_brain(np.random.default_rng(0), (512, 512), 30)


@pytest.mark.parametrize("organs", [("brain",), ("breast",), ("brain", "breast")])
def test_no_global_threshold_finds_the_lesions(drawn: Path, organs: tuple[str, ...]) -> None:
    dice = []  # (images, 2 polarities, 256 thresholds)
    for sample in find_samples(drawn):
        image, mask = read_pair(drawn, sample)
        if sample.organ in organs and mask.any():
            pixels, inside = (np.bincount(v, minlength=256).cumsum() for v in (image.ravel(), image[mask]))
            area = mask.sum()
            dark = 2 * inside / (pixels + area)
            bright = 2 * (area - inside) / (image.size - pixels + area)
            dice.append([dark, bright])
    assert len(dice) >= 10
    assert np.mean(dice, axis=0).max() < 0.35  # the project promises at most 0.40


def test_lesions_stand_out_from_their_surroundings(drawn: Path) -> None:
    contrasts = []
    for sample in find_samples(drawn):
        image, mask = read_pair(drawn, sample)
        if mask.any():
            around = cv2.dilate(mask.astype(np.uint8), np.ones((41, 41), np.uint8)).astype(bool)
            around &= ~cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
            edges = mask & ~cv2.erode(mask.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)
            part = edges if sample.organ == "brain" else mask  # a ring shows by its rim
            contrasts.append(image[part].mean() / image[around].mean())
            assert (contrasts[-1] > 1) == (sample.organ == "brain"), sample.image
    assert np.mean([abs(np.log(c)) > np.log(1.3) for c in contrasts]) > 0.9


def test_existing_folders_are_left_alone(tmp_path: Path) -> None:
    assert ensure_data(tmp_path) is False
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        write_phantoms(tmp_path, brain=1, breast=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_ensure_data_draws_what_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(phantoms, "write_phantoms", lambda root, tell: asked.append(root))
    assert ensure_data(tmp_path / "a" / "b", asked=True) is True
    assert asked == [tmp_path / "a" / "b"]


@pytest.mark.fault
def test_interrupted_drawing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(phantoms, "_write_breast", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_phantoms(tmp_path / "data", brain=1, breast=1)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_appears_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interfere(*_: object) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "theirs.txt").write_text("theirs")

    monkeypatch.setattr(phantoms, "_write_breast", interfere)
    with pytest.raises(InputError, match="cannot be written"):
        write_phantoms(tmp_path / "data", brain=0, breast=1)
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "theirs.txt"]


@pytest.mark.parametrize("wrong", [{"brain": 0, "breast": 0}, {"brain": -1}, {"seed": -1}])
def test_wrong_numbers_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected numbers from 0"):
        write_phantoms(tmp_path / "data", **wrong)
    assert not (tmp_path / "data").exists()
