"""The loaders of a training, for each of its processes."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as lightning
from torch.utils.data import DataLoader, Subset

from tumorseg_train.data.loader import EpochSampler, SplitDataset

VALIDATION_BATCH = 4  # whole images at the contract's size; no gradients are held


class SplitDataModule(lightning.LightningDataModule):
    """Training batches in the epoch's order, validation images in the split's; each process its own share."""

    def __init__(self, training: SplitDataset, validation: SplitDataset) -> None:
        super().__init__()
        assert training.recipe is not None
        self.training = training
        self.validation = validation
        self.recipe = training.recipe

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of (epoch, position); a last one that is not full is left out."""
        trainer = self._trainer()
        if self.recipe.workers:
            self.training.fill(trainer.current_epoch)
        sampler = EpochSampler(len(self.training), self.recipe.seed, trainer.global_rank, trainer.world_size)
        return DataLoader(
            self.training, self.recipe.batch_size, sampler=sampler, drop_last=True, **self._workers()
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation images of this process."""
        trainer = self._trainer()
        mine = range(trainer.global_rank, len(self.validation), trainer.world_size)
        share = Subset(self.validation, mine)
        return DataLoader(share, min(self.recipe.batch_size, VALIDATION_BATCH), **self._workers())

    def _trainer(self) -> lightning.Trainer:
        assert self.trainer is not None
        return self.trainer

    def _workers(self) -> dict[str, Any]:
        return {"num_workers": self.recipe.workers, "persistent_workers": self.recipe.workers > 0}
