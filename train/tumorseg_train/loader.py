"""Images of a split as tensors: read, resized and normalised by the runtime's one preprocessing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, Sampler

from tumorseg_runtime.contract import Contract
from tumorseg_runtime.preprocess import Preprocessor, resize
from tumorseg_train.augment import Augmentation
from tumorseg_train.datasets import read_pair
from tumorseg_train.split import Manifest

UInt8Array = npt.NDArray[np.uint8]
Key = tuple[int, int]  # epoch, position in the epoch


def read_resized(manifest: Manifest, item: Any, contract: Contract) -> tuple[UInt8Array, UInt8Array]:
    """uint8 image (height, width[, 3]) and mask (height, width) of 0 and 1, at the contract's size."""
    image, mask = read_pair(manifest.root, item)
    size = (contract.width, contract.height)
    small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
    return resize(image, contract.height, contract.width), np.asarray(small, np.uint8)


class SplitDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """(image float32 (C, h, w), mask float32 (1, h, w)) of one part of a split.

    With an augmentation, item (epoch, position) is image `position % len(items)`, changed by draws that
    are a function of seed, epoch and position alone: neither worker nor order nor a restart moves them.
    Resized images stay in memory as uint8 (0.5 MB each at 512x512 with the mask).
    """

    def __init__(
        self,
        manifest: Manifest,
        part: str,
        contract: Contract,
        *,
        augmentation: Augmentation | None = None,
        repeats: int = 1,
        limit: int = 0,
        seed: int = 0,
    ) -> None:
        self.items = spread(manifest.part(part), limit)
        self.manifest = manifest
        self.contract = contract
        self.augmentation = augmentation
        self.repeats = repeats
        self.seed = seed
        self._preprocess = Preprocessor(contract)
        self._resized: dict[int, tuple[UInt8Array, UInt8Array]] = {}

    def __len__(self) -> int:
        return len(self.items) * self.repeats

    def resized(self, index: int) -> tuple[UInt8Array, UInt8Array]:
        """Image and mask of item `index` at the contract's size, as `read_resized` gives them."""
        if index not in self._resized:
            self._resized[index] = read_resized(self.manifest, self.items[index], self.contract)
        return self._resized[index]

    def __getitem__(self, key: int | Key) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, position = key if isinstance(key, tuple) else (0, key)
        image, mask = self.resized(position % len(self.items))
        if self.augmentation is not None:
            draw = np.random.SeedSequence((self.seed, epoch, position)).generate_state(1)[0]
            image, mask = self.augmentation(image, mask, int(draw))
        tensor = self._preprocess.normalise(image, self.items[position % len(self.items)].image)
        return torch.from_numpy(tensor), torch.from_numpy(mask[None].astype(np.float32))


def spread(items: tuple[Any, ...], limit: int) -> tuple[Any, ...]:
    """At most `limit` items (0: all), evenly spread over their order, which is by organ and label."""
    if not limit or limit >= len(items):
        return items
    return tuple(items[i * len(items) // limit] for i in range(limit))


class EpochSampler(Sampler[Key]):
    """A new order in every epoch, a function of seed and epoch; Lightning calls `set_epoch`."""

    def __init__(self, length: int, seed: int) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Key]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        return ((self.epoch, int(position)) for position in order)
