from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.processing import preprocess
from tumorseg_runtime.processing.preprocess import (
    Preprocessor,
    resize,
    resize_engine,
    resize_opencv,
    resize_rule,
)

CORNERS = [
    (1, 1), (1, 7), (7, 1), (2, 2), (3, 3), (1, 4000), (4000, 1), (40_000, 3), (17, 5001), (5001, 17),
    (1080, 1920), (2160, 3840),
]  # fmt: skip
GRAY_CONTRACT = Contract(height=64, width=96, mean=(0.3,), std=(0.2,))


def noise(random: np.random.Generator, *shape: int) -> npt.NDArray[np.uint8]:
    return random.integers(0, 256, shape, np.uint8)


def bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    return np.ascontiguousarray(values).view(np.uint32)


@pytest.mark.parametrize("trailing", [(), (3,)], ids=["gray", "rgb"])
def test_the_rule_is_what_opencv_computes(trailing: tuple[int, ...]) -> None:
    random = np.random.default_rng(11)
    sizes = CORNERS + [tuple(int(v) for v in random.integers(1, 700, 2)) for _ in range(200)]
    for index, (height, width) in enumerate(sizes):
        image = noise(random, height, width, *trailing)
        out = random.integers(1, 12, 2) * 32 if index % 2 else random.integers(1, 500, 2)
        by_rule = resize_rule(image, int(out[0]), int(out[1]))
        by_opencv = resize_opencv(image, int(out[0]), int(out[1]))
        assert by_rule.dtype == by_opencv.dtype == np.uint8
        np.testing.assert_array_equal(by_rule, by_opencv, err_msg=f"{image.shape} -> {tuple(out)}")


def test_the_rule_by_hand() -> None:
    row = np.array([[0, 100]], np.uint8)
    # four samples at -0.25, 0.25, 0.75 and 1.25 of two: borders repeat, the middle is 25 and 75
    assert resize_rule(row, 1, 4).tolist() == [[0, 25, 75, 100]]
    # one sample at 0.5 of two: the mean; half to even is decided by + 2**15 >> 16
    assert resize_rule(np.array([[10, 21]], np.uint8), 1, 1).tolist() == [[16]]


def test_an_image_of_the_right_size_is_left_alone() -> None:
    image = noise(np.random.default_rng(0), 64, 96, 3)
    assert resize(image, 64, 96) is image
    np.testing.assert_array_equal(resize_rule(image, 64, 96), image)


def test_an_opencv_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resize_engine() == "opencv"
    image = noise(np.random.default_rng(1), 50, 70, 3)
    expected = Preprocessor(GRAY_CONTRACT)(image[:, :, 0])

    def off_by_one(*args: Any, **kwargs: Any) -> npt.NDArray[np.uint8]:
        return real(*args, **kwargs) ^ np.uint8(1)

    real = cv2.resize
    monkeypatch.setattr(cv2, "resize", off_by_one)
    resize_engine.cache_clear()
    try:
        assert resize_engine() == "numpy"
        np.testing.assert_array_equal(bits(Preprocessor(GRAY_CONTRACT)(image[:, :, 0])), bits(expected))
    finally:
        resize_engine.cache_clear()


@pytest.mark.parametrize("shape", [(512, 512), (512, 512, 3), (300, 411), (300, 411, 3), (1, 1), (700, 2, 3)])
def test_the_tensor_is_the_plain_formula_bit_for_bit(shape: tuple[int, ...]) -> None:
    contract = Contract(height=64, width=96)
    image = noise(np.random.default_rng(2), *shape)
    resized = resize_rule(image, 64, 96)
    rgb = resized if resized.ndim == 3 else np.repeat(resized[:, :, None], 3, axis=2)
    mean, std = np.float32(contract.mean), np.float32(contract.std)
    formula = ((rgb.astype(np.float32) / np.float32(255) - mean) / std).transpose(2, 0, 1)
    tensor = Preprocessor(contract)(image)
    assert tensor.shape == (3, 64, 96)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    np.testing.assert_array_equal(bits(tensor), bits(formula))


def test_one_channel() -> None:
    image = noise(np.random.default_rng(3), 64, 96)
    tensor = Preprocessor(GRAY_CONTRACT)(image)
    formula = (image.astype(np.float32) / np.float32(255) - np.float32(0.3)) / np.float32(0.2)
    np.testing.assert_array_equal(bits(tensor), bits(formula[None]))
    with pytest.raises(InputError, match=r"scan\.png: is a colour image, the network takes gray"):
        Preprocessor(GRAY_CONTRACT)(np.zeros((5, 5, 3), np.uint8), "scan.png")


VIEWS: list[Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]] = [
    lambda image: image[:, ::-1],
    lambda image: image[::2, ::3],
    lambda image: image[::-1, :, ::-1],
    lambda image: np.asfortranarray(image),
    lambda image: image.transpose(1, 0, 2),
    lambda image: image[:, :, 1],
]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("size", [(64, 96), (150, 90)])
def test_memory_layout_does_not_matter(
    view: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]], size: tuple[int, int]
) -> None:
    image = view(noise(np.random.default_rng(4), *size, 3))
    image.flags.writeable = False
    preprocess = Preprocessor(Contract(height=64, width=96))
    np.testing.assert_array_equal(bits(preprocess(image)), bits(preprocess(np.ascontiguousarray(image))))


def test_an_opencv_that_ignores_dst_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(np.random.default_rng(5), 64, 96, 3)
    contract = Contract(height=64, width=96)
    expected = Preprocessor(contract)(image)
    real = cv2.LUT
    monkeypatch.setattr(preprocess.cv2, "LUT", lambda plane, table, dst: real(plane, table))
    np.testing.assert_array_equal(bits(Preprocessor(contract)(image)), bits(expected))
