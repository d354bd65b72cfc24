from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.read import write_png
from tumorseg_train.data.checks import check_samples
from tumorseg_train.data.datasets import Sample, find_samples, read_pair
from tumorseg_train.layouts.known import unread_folders

SHARED = Path(os.environ.get("TUMORSEG_SHARED", Path(__file__).parents[4] / "shared"))
SIZE = (40, 60)  # height, width
GRAY, GRAY_ALPHA, RGB, RGBA = 0, 4, 2, 6  # PNG colour types


def png(path: Path, rows: np.ndarray, colour: int = GRAY, bits: int = 8) -> None:
    """A PNG file of any colour type and depth: uint8 `rows` (H, bytes of a row)."""
    channels = {GRAY: 1, GRAY_ALPHA: 2, RGB: 3, RGBA: 4}[colour]
    height, width = rows.shape[0], rows.shape[1] * 8 // (channels * bits)
    chunks = b""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    for kind, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")):
        chunks += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def mask_at(top: int, left: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    mask[top : top + 8, left : left + 10] = 255
    return mask


def put(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, pixels)


def picture(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Both datasets: brain 1, 2 (mask 2_mask), breast benign 1 (two masks), malignant 1, normal 1."""
    busi = tmp_path / "breast" / "Dataset_BUSI_with_GT"
    for n, mask in (("1", "1.png"), ("2", "2_mask.png")):
        put(tmp_path / "brain" / "images" / f"{n}.png", picture(int(n)))
        put(tmp_path / "brain" / "masks" / mask, mask_at(4, 5))
    put(busi / "benign" / "benign (1).png", picture(3))
    put(busi / "benign" / "benign (1)_mask.png", mask_at(2, 2))
    put(busi / "benign" / "benign (1)_mask_1.png", mask_at(20, 30))
    put(busi / "malignant" / "malignant (1).png", picture(4))
    put(busi / "malignant" / "malignant (1)_mask.png", mask_at(6, 6))
    put(busi / "normal" / "normal (1).png", picture(5))
    put(busi / "normal" / "normal (1)_mask.png", np.zeros(SIZE, np.uint8))
    return tmp_path


def test_both_datasets_are_found_at_once(root: Path) -> None:
    samples = find_samples(root)
    busi = "breast/Dataset_BUSI_with_GT"
    assert samples == [
        Sample("brain/images/1.png", ("brain/masks/1.png",), "brain", "tumour", neighbours=True),
        Sample("brain/images/2.png", ("brain/masks/2_mask.png",), "brain", "tumour", neighbours=True),
        Sample(
            f"{busi}/benign/benign (1).png",
            (f"{busi}/benign/benign (1)_mask.png", f"{busi}/benign/benign (1)_mask_1.png"),
            "breast",
            "benign",
        ),
        Sample(
            f"{busi}/malignant/malignant (1).png",
            (f"{busi}/malignant/malignant (1)_mask.png",),
            "breast",
            "malignant",
        ),
        Sample(f"{busi}/normal/normal (1).png", (f"{busi}/normal/normal (1)_mask.png",), "breast", "normal"),
    ]
    assert check_samples(root, samples) == []


@pytest.mark.parametrize(
    ("inside", "images"),
    [("brain", 2), ("breast", 3), ("breast/Dataset_BUSI_with_GT", 3)],
)
def test_one_dataset_can_be_the_root(root: Path, inside: str, images: int) -> None:
    samples = find_samples(root / inside)
    assert len(samples) == images
    assert check_samples(root / inside, samples) == []
    assert all((root / inside / sample.image).is_file() for sample in samples)


def test_classes_right_under_breast(root: Path) -> None:
    busi = root / "breast" / "Dataset_BUSI_with_GT"
    for label in ("benign", "malignant", "normal"):
        (busi / label).rename(root / "breast" / label)
    busi.rmdir()
    assert [s.label for s in find_samples(root) if s.organ == "breast"] == ["benign", "malignant", "normal"]


def test_masks_are_ored(root: Path) -> None:
    benign = next(sample for sample in find_samples(root) if sample.label == "benign")
    image, mask = read_pair(root, benign)
    assert np.array_equal(image, picture(3))
    assert np.array_equal(mask, (mask_at(2, 2) | mask_at(20, 30)) > 0)


def masks_of_all_kinds(path: Path, kind: str) -> None:
    """The mask `mask_at(4, 8)` written as `kind`; inverse: its alpha is opaque outside the tumour only."""
    mask = mask_at(4, 8, (40, 64))
    alpha = (
        np.where(mask > 0, 0, 255).astype(np.uint8) if kind.endswith("inverse") else np.full_like(mask, 255)
    )
    if kind == "1-bit":
        png(path, np.packbits(mask > 0, axis=1), GRAY, bits=1)
    elif kind == "gray 0 and 1":
        png(path, mask // 255)
    elif kind == "gray":
        png(path, mask)
    elif kind == "RGB":
        png(path, np.dstack([mask] * 3).reshape(40, -1), RGB)
    elif kind == "red":
        png(path, np.dstack([mask, mask * 0, mask * 0]).reshape(40, -1), RGB)
    elif kind.startswith("RGBA"):
        png(path, np.dstack([mask] * 3 + [alpha]).reshape(40, -1), RGBA)
    else:
        png(path, np.dstack([mask, alpha]).reshape(40, -1), GRAY_ALPHA)


@pytest.mark.parametrize(
    "kind",
    [
        "1-bit",
        "gray",
        "gray 0 and 1",
        "RGB",
        "red",
        "RGBA",
        "RGBA inverse",
        "gray+alpha",
        "gray+alpha inverse",
    ],
)
def test_masks_of_all_kinds(tmp_path: Path, kind: str) -> None:
    put(tmp_path / "brain" / "images" / "1.png", picture(size=(40, 64)))
    masks_of_all_kinds(tmp_path / "brain" / "masks" / "1.png", kind)
    samples = find_samples(tmp_path)
    assert check_samples(tmp_path, samples) == []
    assert np.array_equal(read_pair(tmp_path, samples[0])[1], mask_at(4, 8, (40, 64)) > 0)


def test_empty_rgba_mask_of_a_normal_image_is_empty(root: Path) -> None:
    path = root / "breast/Dataset_BUSI_with_GT/normal/normal (1)_mask.png"
    png(path, np.dstack([np.zeros((*SIZE, 3), np.uint8), np.full(SIZE, 255, np.uint8)]).reshape(40, -1), RGBA)
    samples = find_samples(root)
    assert check_samples(root, samples) == []
    assert not read_pair(root, samples[-1])[1].any()


def test_equal_channels_are_gray_and_colour_stays(root: Path) -> None:
    gray, coloured = picture(8), picture(9, (*SIZE, 3))
    put(root / "brain/images/1.png", np.dstack([gray] * 3))
    put(root / "brain/images/2.png", coloured)
    first, second = find_samples(root)[:2]
    assert np.array_equal(read_pair(root, first)[0], gray)
    assert np.array_equal(read_pair(root, second)[0], coloured)


def test_an_image_without_masks_has_no_tumour(root: Path) -> None:
    image, mask = read_pair(root, Sample("brain/images/1.png", (), "brain", "tumour"))
    assert mask.shape == image.shape
    assert not mask.any()


def test_reading_a_mask_of_another_size_is_refused(root: Path) -> None:
    put(root / "brain/masks/1.png", mask_at(0, 0, (60, 40)))
    with pytest.raises(InputError, match=r"brain/masks/1.png: has 40x60 pixels, expected 60x40"):
        read_pair(root, find_samples(root)[0])


def test_every_problem_is_reported_at_once(root: Path) -> None:
    brain, busi = root / "brain", root / "breast" / "Dataset_BUSI_with_GT"
    (brain / "masks" / "1.png").unlink()
    put(brain / "masks" / "2_mask.png", mask_at(0, 0, (60, 40)))
    put(brain / "masks" / "7.png", mask_at(0, 0))
    put(brain / "preview.png", picture())
    broken = busi / "benign" / "benign (1).png"
    broken.write_bytes(broken.read_bytes()[:20])
    put(busi / "benign" / "benign (1)_mask_1.png", np.minimum(picture(1), 9))
    put(busi / "malignant" / "malignant (1)_mask.png", np.zeros(SIZE, np.uint8))
    put(busi / "normal" / "normal (1)_mask.png", mask_at(1, 1))
    put(busi / "normal" / "normal (9)_mask.png", np.zeros(SIZE, np.uint8))
    for name in ("Thumbs.db", "notes.txt", "._benign (1).png"):
        (busi / "benign" / name).write_text("of no concern")
    problems = check_samples(root, find_samples(root))
    prefix = "breast/Dataset_BUSI_with_GT"
    expected = [
        ("brain/images/1.png: has no mask", "add it"),
        ("brain/masks/2_mask.png: has 40x60 pixels, expected 60x40", "at the image's size"),
        (f"{prefix}/benign/benign (1).png: ", "again"),  # the runtime's words
        (f"{prefix}/benign/benign (1)_mask_1.png: has 10 values (0, 1, 2, 3, ...)", "save it as PNG"),
        (f"{prefix}/malignant/malignant (1).png: is malignant, but its masks are empty", "mark it"),
        (f"{prefix}/normal/normal (1).png: is normal, but its masks mark 80 pixels", "blacken"),
        ("brain/masks/7.png: is a mask without an image", "remove the mask"),
        ("brain/preview.png: is an image outside the layout", "move it out"),
        (f"{prefix}/normal/normal (9)_mask.png: is a mask without an image", "remove the mask"),
    ]
    assert len(problems) == len(expected), problems
    for (start, remedy), problem in zip(expected, problems, strict=True):
        assert start in problem
        assert remedy in problem
        assert "\n" not in problem
        assert str(root) not in problem  # all paths are relative to the root


@pytest.mark.parametrize(
    ("values", "said"), [((255, 255), "fills the image"), ((10, 200), "has 2 values (10, 200)")]
)
def test_the_background_of_a_mask_must_be_zero(root: Path, values: tuple[int, int], said: str) -> None:
    mask = np.full(SIZE, values[0], np.uint8)
    mask[3:9, 3:9] = values[1]
    put(root / "brain" / "masks" / "1.png", mask)
    (problem,) = check_samples(root, find_samples(root))
    assert problem.startswith(f"brain/masks/1.png: {said}")
    assert "--tumour" in problem


def test_a_black_mask_is_no_problem_for_brain(root: Path) -> None:
    put(root / "brain" / "masks" / "1.png", np.zeros(SIZE, np.uint8))
    assert check_samples(root, find_samples(root)) == []


def test_one_mask_for_two_images_is_a_problem(root: Path) -> None:
    put(root / "brain" / "images" / "1.bmp.png", picture())
    (root / "brain" / "images" / "1.bmp.png").rename(root / "brain" / "images" / "1.PNG")
    if len(find_samples(root)) == 5:
        pytest.skip("the file system does not tell 1.png from 1.PNG")
    (problem,) = check_samples(root, find_samples(root))
    assert problem.startswith("brain/masks/1.png: belongs to 2 images")


def test_folders_that_are_not_read_are_known(root: Path) -> None:
    put(root / "lung" / "1.png", picture())
    assert unread_folders(root) == ["lung"]
    assert unread_folders(root / "brain") == []
    assert check_samples(root, find_samples(root)) == []


def test_unknown_folders_are_refused_with_the_layouts(tmp_path: Path) -> None:
    layouts = r"brain/images with brain/masks, brain/1\.mat \.\.\., or breast/"
    with pytest.raises(InputError, match=f"holds nothing, expected {layouts}"):
        find_samples(tmp_path)
    put(tmp_path / "pictures" / "1.png", picture())
    with pytest.raises(InputError, match="holds pictures, expected brain/images"):
        find_samples(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        find_samples(tmp_path / "absent")


def test_half_a_layout_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "brain" / "images" / "1.png", picture())
    with pytest.raises(InputError, match=r"has images/ only, expected images/ and masks/"):
        find_samples(tmp_path)


def test_layout_without_images_is_refused(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / "brain" / name).mkdir(parents=True)
    with pytest.raises(InputError, match="hold no images"):
        find_samples(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason=f"no real datasets under {SHARED}/data")
def test_real_datasets_are_found_and_sound() -> None:
    samples = find_samples(SHARED / "data")
    found = {label: sum(sample.label == label for sample in samples) for label in {s.label for s in samples}}
    assert found == {"tumour": 531, "benign": 381, "malignant": 192, "normal": 107}
    assert sum(len(sample.masks) for sample in samples) == 531 + 697
    assert check_samples(SHARED / "data", samples) == []
