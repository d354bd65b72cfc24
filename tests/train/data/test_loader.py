import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.processing.preprocess import Preprocessor
from tumorseg_train.config.recipe import load_recipe
from tumorseg_train.data.loader import EpochSampler, SplitDataset, spread
from tumorseg_train.data.split import Item, Manifest

CONTRACT = Contract(height=64, width=96)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Four training images of 80x100 with a bright square as tumour."""
    items = []
    for index in range(4):
        image = np.random.default_rng(index).integers(0, 120, (80, 100), np.uint8)
        mask = np.zeros_like(image)
        mask[20 + index : 50, 30:70] = 255
        image[mask > 0] = 220
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)
        cv2.imwrite(str(tmp_path / f"{index}_mask.png"), mask)
        items.append(Item(f"{index}.png", (f"{index}_mask.png",), "brain", "tumour", "train", 80, 100, 1, {}))
    return Manifest(tmp_path, 0, tuple(items))


def test_tensor_is_what_the_runtime_makes_of_the_file(manifest: Manifest) -> None:
    image, mask = SplitDataset(manifest, "train", CONTRACT)[2]
    pixels = cv2.imread(str(manifest.root / "2.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(image.numpy(), Preprocessor(CONTRACT)(pixels))
    assert mask.shape == (1, 64, 96)
    assert set(mask.unique().tolist()) == {0, 1}
    truth = cv2.imread(str(manifest.root / "2_mask.png"), 0) > 0
    assert mask.mean().item() == pytest.approx(truth.mean(), abs=0.01)


def test_draws_depend_on_seed_epoch_and_position_alone(manifest: Manifest) -> None:
    recipe = load_recipe("quick", crop=32, crops_per_image=3)

    def samples(seed: int, workers: int, epoch: int) -> dict[bytes, int]:
        dataset = SplitDataset(manifest, "train", CONTRACT, recipe=dataclasses.replace(recipe, seed=seed))
        sampler = EpochSampler(len(dataset), seed)
        sampler.set_epoch(epoch)
        loader = DataLoader(dataset, 2, sampler=sampler, num_workers=workers)
        return {image.numpy().tobytes(): i for i, batch in enumerate(loader) for image in batch[0]}

    assert samples(1, 0, 3) == samples(1, 2, 3)
    assert samples(1, 0, 3).keys() != samples(1, 0, 4).keys()
    assert samples(1, 0, 3).keys() != samples(2, 0, 3).keys()
    assert len(samples(1, 0, 3)) == 12  # three different looks at each of the four images


def test_sampler_visits_everything_once_in_a_new_order_each_epoch() -> None:
    sampler = EpochSampler(50, seed=0)
    first = [position for _, position in sampler]
    sampler.set_epoch(1)
    second = [position for _, position in sampler]
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert {epoch for epoch, _ in sampler} == {1}


def test_spread_keeps_order_and_covers_the_range() -> None:
    assert spread(tuple(range(100)), 4) == (0, 25, 50, 75)
    assert spread((1, 2), 4) == (1, 2)
    assert spread((1, 2), 0) == (1, 2)


def test_batches_are_float32_in_nchw(manifest: Manifest) -> None:
    images, masks = next(iter(DataLoader(SplitDataset(manifest, "train", CONTRACT), 4)))
    assert images.shape == (4, 3, 64, 96)
    assert masks.shape == (4, 1, 64, 96)
    assert images.dtype == masks.dtype == torch.float32


def test_small_epochs_see_the_image_as_the_runtime_resizes_it(manifest: Manifest) -> None:
    still = {"rotation": 0.0, "zoom": 0.0, "translation": 0.0, "flip": False, "crops_per_image": 1}
    recipe = load_recipe("quick", crop=0, small_epochs=2, small_scale=0.5, **still)
    dataset = SplitDataset(manifest, "train", CONTRACT, recipe=recipe)
    pixels = cv2.imread(str(manifest.root / "1.png"), cv2.IMREAD_UNCHANGED)
    for epoch, contract in (
        (1, Contract(height=32, width=64)),
        (2, CONTRACT),
        (0, Contract(height=32, width=64)),
    ):
        image, mask = dataset[epoch, 1]
        expected = Preprocessor(contract)(pixels)
        assert np.allclose(image.numpy(), expected, atol=0.01)
        assert mask.shape == (1, contract.height, contract.width)


def test_images_beyond_the_memory_s_share_are_read_each_time(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = SplitDataset(manifest, "train", CONTRACT)
    whole.fill(0)
    (manifest.root / "0.png").unlink()
    assert whole[0][0].shape == (3, 64, 96)  # from memory
    monkeypatch.setattr("tumorseg_train.data.loader.CACHE_BYTES", 1)
    small = SplitDataset(manifest, "train", CONTRACT)
    assert torch.equal(small[1][0], whole[1][0])
    assert torch.equal(small[2][0], whole[2][0])
    (manifest.root / "2.png").unlink()
    with pytest.raises(InputError, match=r"2\.png"):
        small[2]
