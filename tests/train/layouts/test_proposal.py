"""What `tumorseg data import` makes of the layouts that users bring."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.read import write_png
from tumorseg_train.data.checks import examine, in_few_lines
from tumorseg_train.data.datasets import find_samples, read_pair
from tumorseg_train.layouts.declaration import FILE, Declaration, read_declarations
from tumorseg_train.layouts.proposal import propose

Name = Callable[[int], str]


def truth(seed: int) -> np.ndarray:
    mask = np.zeros((32, 32), np.uint8)
    row, column = np.random.default_rng(seed).integers(4, 16, 2)
    mask[row : row + 6, column : column + 7] = 255
    return mask


def put(
    root: Path,
    images: str,
    masks: str,
    image: Name = lambda n: f"{n}.png",
    mask: Name = lambda n: f"{n}.png",
    count: int = 4,
) -> None:
    """`count` images with masks, at names of their numbers; the image says its mask's seed in a pixel."""
    for folder in (images, masks):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for n in range(1, count + 1):
        pixels = np.random.default_rng(n).integers(0, 256, (32, 32), np.uint8)
        pixels[0, 0] = n
        write_png(root / images / image(n), pixels, durable=False)
        write_png(root / masks / mask(n), truth(n), durable=False)


def busi(root: Path, folder: str, name: str) -> None:
    put(root, folder, folder, lambda n: f"{name} ({n}).png", lambda n: f"{name} ({n})_mask.png")


def layout_of(kind: str, root: Path) -> int:
    """Draw a layout; returns how many images it has."""
    unicode = "Kopf-Übung"
    if kind == "nested":
        for label in ("benign", "malignant"):
            busi(root, f"Dataset_BUSI_with_GT/Dataset_BUSI_with_GT/{label}", label)
        return 8
    if kind == "flat":
        for label in ("benign", "malignant"):
            busi(root, ".", label)
        return 8
    if kind == "parts":
        for part in ("train", "val"):
            put(root, f"{part}/images", f"{part}/masks")
        return 8
    if kind == "kaggle":
        for patient in ("TCGA_CS_4941_19960909", "TCGA_CS_4942_19970222", "TCGA_DU_5849_19950405"):
            folder = f"kaggle_3m/{patient}"
            put(
                root,
                folder,
                folder,
                lambda n, p=patient: f"{p}_{n}.png",
                lambda n, p=patient: f"{p}_{n}_mask.png",
            )
        return 12
    plain: dict[str, tuple[str, str, Name, Name]] = {
        "plain": ("images", "masks", lambda n: f"{n}.png", lambda n: f"{n}.png"),
        "labels": ("images", "labels", lambda n: f"{n}.png", lambda n: f"{n}.png"),
        "capitals": ("Images", "Masks", lambda n: f"IMG_{n}.PNG", lambda n: f"img_{n}.png"),
        "seg": ("images", "masks", lambda n: f"{n}.png", lambda n: f"{n}_seg.png"),
        "beside": (".", ".", lambda n: f"a{n}.png", lambda n: f"a{n}_mask.png"),
        "masks/0": ("images", "masks/0", lambda n: f"{n}.png", lambda n: f"{n}.png"),
        "NFC and NFD": (
            "images", "masks",
            lambda n: unicodedata.normalize("NFC", f"{unicode} {n}.png"),
            lambda n: unicodedata.normalize("NFD", f"{unicode} {n}.png"),
        ),
        "both named": ("images", "masks", lambda n: f"image_{n}.png", lambda n: f"mask_{n}.png"),
        "numbers": ("images", "masks", lambda n: f"{n}.png", lambda n: f"{n:03d}.png"),
        "unusual words": ("images", "masks", lambda n: f"{n}_ultra.png", lambda n: f"{n}_region.png"),
        "named folders": ("train_images", "train_masks", lambda n: f"{n}.png", lambda n: f"{n}.png"),
    }  # fmt: skip
    put(root, *plain[kind])
    return 4


KINDS = (
    "plain", "labels", "parts", "capitals", "nested", "flat", "seg", "beside", "masks/0", "kaggle",
    "NFC and NFD", "both named", "numbers", "unusual words", "named folders",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_layouts_are_proposed_and_every_image_gets_its_own_mask(kind: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    count = layout_of(kind, root)
    declared = propose(root, {"organ": "thyroid"})
    (root / FILE).write_text("".join(one.to_toml() for one in declared), encoding="utf-8")
    assert read_declarations(root / FILE) == declared
    samples = find_samples(root)
    assert len(samples) == count
    facts, problems = examine(root, samples)
    assert [problem.text for problem in problems] == []
    assert len(facts) == count
    for sample in samples:
        image, mask = read_pair(root, sample)
        assert sample.organ == "thyroid"
        assert np.array_equal(mask, truth(int(image[0, 0])) > 0)
    if kind == "kaggle":
        assert len({sample.patient for sample in samples}) == 3
    if kind in ("nested", "flat"):
        assert {sample.label for sample in samples} == {"benign", "malignant"}


def test_images_and_masks_of_an_unknown_organ_are_never_brain(tmp_path: Path) -> None:
    put(tmp_path, "images", "masks")
    with pytest.raises(InputError, match=r"does not say of what organ.*data import .* --organ NAME`"):
        find_samples(tmp_path)
    with pytest.raises(InputError, match=r"name no organ, expected one: say what the images show by --organ"):
        propose(tmp_path, {})


def test_an_organ_that_a_folder_names_is_proposed(tmp_path: Path) -> None:
    put(tmp_path / "Brain Tumor Dataset", "images", "masks")
    assert propose(tmp_path / "Brain Tumor Dataset", {})[0].organ == "brain"
    assert propose(tmp_path, {})[0].organ == "brain"
    put(tmp_path / "breast", "images", "labels")
    assert {one.organ for one in propose(tmp_path / "breast", {})} == {"breast"}


def test_masks_in_two_folders_are_refused_until_one_is_named(tmp_path: Path) -> None:
    for part in ("0", "1"):
        put(tmp_path, "images", f"masks/{part}")
    with pytest.raises(InputError, match=r"masks in masks/0, masks/1, expected one: name it by --masks"):
        propose(tmp_path, {"organ": "skin"})
    (declared,) = propose(tmp_path, {"organ": "skin", "masks": "masks/1"})
    assert all(sample.masks[0].startswith("masks/1/") for sample in find_samples(tmp_path, (declared,)))


def test_masks_of_another_name_are_one_line_that_says_their_pairing(tmp_path: Path) -> None:
    put(tmp_path, "images", "masks", mask=lambda n: f"{n}_seg.png", count=30)
    declared = (Declaration(organ="skin", images="images", masks="masks"),)
    samples = find_samples(tmp_path, declared)
    problems = examine(tmp_path, samples, declared)[1]
    assert len(problems) == 30
    (line,) = in_few_lines(problems)
    assert "images: 30 files (1.png, 10.png, 11.png, ...): have no masks in masks" in line
    assert "30 files such as masks/1_seg.png lie there, declare --pairing '*=*_seg'" in line


def test_inverted_masks_are_one_line_until_their_tumour_is_declared(tmp_path: Path) -> None:
    put(tmp_path, "images", "masks", count=8)
    for n in range(1, 9):
        write_png(tmp_path / "masks" / f"{n}.png", 255 - truth(n), durable=False)
    declared = (Declaration(organ="skin", images="images", masks="masks"),)
    facts, problems = examine(tmp_path, find_samples(tmp_path, declared), declared)
    (line,) = in_few_lines(problems)
    assert facts == {}
    assert "masks: 8 files (1.png, 2.png, 3.png, ...): fill the image's border" in line
    assert "--tumour 0" in line
    declared = (Declaration(organ="skin", images="images", masks="masks", tumour="0"),)
    samples = find_samples(tmp_path, declared)
    assert examine(tmp_path, samples, declared)[1] == []
    assert np.array_equal(read_pair(tmp_path, samples[0])[1], truth(1) > 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("organ = 'x'", r"expected tables \[\[dataset\]\]"),
        ("[[dataset]]\norgan = 'x'\nimages = 'i'\n", "lacks the field masks"),
        ("[[dataset]]\norgan = 'x'\nimages = 'i'\nmasks = 'm'\ncolour = 1\n", "has the unknown field colour"),
        ("[[dataset]]\norgan = 'a=b'\nimages = 'i'\nmasks = 'm'\n", "organ is 'a=b', expected a name"),
        (
            "[[dataset]]\norgan = 'x'\nimages = '../i'\nmasks = 'm'\n",
            r"images is '\.\./i', expected a folder",
        ),
        ("[[dataset]]\norgan = 'x'\nimages = 'i'\nmasks = 'i'\n", "expected one that tells them apart"),
        (
            "[[dataset]]\norgan = 'x'\nimages = 'i'\nmasks = 'm'\npairing = '*=#'\n",
            "expected IMAGE=MASK",
        ),
        ("[[dataset]]\norgan = 'x'\nimages = 'i'\nmasks = 'm'\ntumour = 'reddish'\n", "expected a colour"),
        ("[[dataset", "is not TOML"),
    ],
)
def test_a_wrong_declaration_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        find_samples(tmp_path)
    assert FILE in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_declared_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no folder images, which is declared to hold the images"):
        find_samples(tmp_path, (Declaration(organ="skin", images="images", masks="masks"),))
