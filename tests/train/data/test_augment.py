import numpy as np
import pytest

from tumorseg_train.config.recipe import load_recipe
from tumorseg_train.data.augment import Augmentation


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    image = np.full((128, 160), 60, np.uint8)
    image[70:90, 100:130] = 220
    return image, (image == 220).astype(np.uint8)


@pytest.mark.parametrize("shape", [(128, 160), (128, 160, 3)])
def test_image_and_mask_move_together(pair: tuple[np.ndarray, np.ndarray], shape: tuple[int, ...]) -> None:
    image, mask = pair
    if len(shape) == 3:
        image = np.repeat(image[:, :, None], 3, axis=2)
    augmentation = Augmentation(load_recipe("full"))
    for seed in range(20):
        moved, moved_mask = augmentation(image, mask, seed)
        assert moved.shape == shape
        assert moved.dtype == np.uint8
        gray = moved if moved.ndim == 2 else moved[:, :, 0]
        assert set(np.unique(moved_mask)) <= {0, 1}
        assert np.count_nonzero((gray > 140) != (moved_mask > 0)) < 0.15 * 20 * 30  # only the blurred border


def test_every_draw_is_a_function_of_the_seed(pair: tuple[np.ndarray, np.ndarray]) -> None:
    first = Augmentation(load_recipe("quick"))
    second = Augmentation(load_recipe("quick"))
    second(*pair, 99)  # what was drawn before does not matter
    for seed in (1, 2):
        assert all(map(np.array_equal, first(*pair, seed), second(*pair, seed)))
    assert not np.array_equal(first(*pair, 1)[0], first(*pair, 2)[0])


def test_crops_have_their_size_and_half_of_them_or_more_show_the_tumour(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    augmentation = Augmentation(load_recipe("quick", crop=32))
    masks = [augmentation(*pair, seed)[1] for seed in range(60)]
    assert {mask.shape for mask in masks} == {(32, 32)}
    assert sum(mask.any() for mask in masks) >= 24
    assert not all(mask.any() for mask in masks)


def test_distortion_bends_half_of_the_images_and_moves_the_mask_with_them(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    still = {
        "rotation": 0.0,
        "zoom": 0.0,
        "translation": 0.0,
        "brightness": 0.0,
        "contrast": 0.0,
        "flip": False,
    }
    augmentation = Augmentation(load_recipe("full", **still, distortion=0.3))
    bent = 0
    for seed in range(40):
        image, mask = augmentation(*pair, seed)
        bent += not np.array_equal(image, pair[0])
        assert np.count_nonzero((image > 140) != (mask > 0)) < 0.15 * 20 * 30
    assert 10 < bent < 30
    straight = Augmentation(load_recipe("full", **still, distortion=0.0))
    assert all(np.array_equal(straight(*pair, seed)[0], pair[0]) for seed in range(10))
