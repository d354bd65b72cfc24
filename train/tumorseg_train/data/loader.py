"""Images of a split as tensors: read, resized and normalised by the runtime's one preprocessing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, Sampler

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.processing.preprocess import Preprocessor, resize
from tumorseg_train.config.recipe import Recipe
from tumorseg_train.data.augment import Augmentation
from tumorseg_train.data.datasets import read_pair
from tumorseg_train.data.split import Manifest

UInt8Array = npt.NDArray[np.uint8]
Key = tuple[int, int]  # epoch, position in the epoch
CACHE_BYTES = 4 << 30  # of resized images in memory; the rest is read each time


def read_resized(manifest: Manifest, item: Any, height: int, width: int) -> tuple[UInt8Array, UInt8Array]:
    """uint8 image (height, width[, 3]) and mask (height, width) of 0 and 1."""
    image, mask = read_pair(manifest.root, item)
    small = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return resize(image, height, width), np.asarray(small, np.uint8)


class SplitDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """(image float32 (C, h, w), mask float32 (1, h, w)) of one part of a split.

    With a recipe, item (epoch, position) is image `position % len(items)` at the epoch's size, changed by
    draws that are a function of seed, epoch and position alone: neither worker nor order nor a restart moves
    them. Resized images stay in memory as uint8 (0.5 MB each at 512x512 with the mask), up to CACHE_BYTES.
    """

    def __init__(
        self,
        manifest: Manifest,
        part: str,
        contract: Contract,
        *,
        recipe: Recipe | None = None,
        limit: int = 0,
    ) -> None:
        self.items = spread(manifest.part(part), limit)
        self.manifest = manifest
        self.contract = contract
        self.recipe = recipe
        self._augment = Augmentation(recipe) if recipe else None
        self._preprocess = Preprocessor(contract)
        self._resized: dict[int, tuple[UInt8Array, UInt8Array]] = {}
        self._size = (contract.height, contract.width)
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.items) * (self.recipe.crops_per_image if self.recipe else 1)

    def size(self, epoch: int) -> tuple[int, int]:
        """Height and width in pixels of whole images in an epoch."""
        height, width = self.contract.height, self.contract.width
        if self.recipe is None:
            return height, width
        return self.recipe.scaled(height, epoch), self.recipe.scaled(width, epoch)

    def resized(self, index: int, epoch: int = 0) -> tuple[UInt8Array, UInt8Array]:
        """Image and mask of item `index` at the epoch's size, as `read_resized` gives them."""
        size = self.size(epoch)
        if size != self._size:
            self._resized, self._size, self._bytes = {}, size, 0
        if index in self._resized:
            return self._resized[index]
        pair = read_resized(self.manifest, self.items[index], *size)
        if self._bytes < CACHE_BYTES:
            self._resized[index] = pair
            self._bytes += pair[0].nbytes + pair[1].nbytes
        return pair

    def fill(self, epoch: int) -> None:
        """Read all images of an epoch, so that processes forked from this one share them."""
        for index in range(len(self.items)):
            self.resized(index, epoch)

    def __getitem__(self, key: int | Key) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, position = key if isinstance(key, tuple) else (0, key)
        image, mask = self.resized(position % len(self.items), epoch)
        if self._augment is not None and self.recipe is not None:
            draw = np.random.SeedSequence((self.recipe.seed, epoch, position)).generate_state(1)[0]
            image, mask = self._augment(image, mask, int(draw))
        tensor = self._preprocess.normalise(image, self.items[position % len(self.items)].image)
        return torch.from_numpy(tensor), torch.from_numpy(mask[None].astype(np.float32))


def spread(items: tuple[Any, ...], limit: int) -> tuple[Any, ...]:
    """At most `limit` items (0: all), evenly spread over their order, which is by organ and label."""
    if not limit or limit >= len(items):
        return items
    return tuple(items[i * len(items) // limit] for i in range(limit))


class EpochSampler(Sampler[Key]):
    """A new order in every epoch, a function of seed and epoch; Lightning calls `set_epoch`.

    Of several processes, number `rank` gets each `processes`-th position, and all get equally many.
    """

    def __init__(self, length: int, seed: int, rank: int = 0, processes: int = 1) -> None:
        self.length = length
        self.seed = seed
        self.rank = rank
        self.processes = processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.processes

    def __iter__(self) -> Iterator[Key]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        mine = order[self.rank :: self.processes][: len(self)]
        return ((self.epoch, int(position)) for position in mine)
