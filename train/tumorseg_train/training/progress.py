"""Progress of a training: images per second and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as lightning
from pytorch_lightning.callbacks import Callback

from tumorseg_runtime.core.progress import duration
from tumorseg_train.data.loader import SplitDataset


class Progress(Callback):
    """Says how far the training is, every `seconds` at most.

    The time left assumes that a pixel costs as much in the epochs to come as it did since the start,
    validation included.
    """

    def __init__(self, training: SplitDataset, seconds: float, log: Callable[[str], None]) -> None:
        self.training = training
        self.seconds = seconds
        self.write_line = log  # not `log`: Lightning puts its own there
        self._pixels = 0  # seen since the start of this process
        self._started = self._said = self._epoch_started = 0.0

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """The clock starts."""
        self._started = self._said = time.perf_counter()

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Images per second are of the epoch alone."""
        self._epoch_started = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        index: int,
    ) -> None:
        """Count, and say a line if the last one is long enough ago."""
        images = len(batch[0]) * trainer.world_size
        self._pixels += images * batch[0].shape[2] * batch[0].shape[3]
        now = time.perf_counter()
        if now - self._said < self.seconds:
            return
        self._said = now
        batches = int(trainer.num_training_batches)
        epoch, epochs = trainer.current_epoch, trainer.max_epochs or 0
        of_epoch = [batches * images * self._image_pixels(later) for later in range(epoch, epochs)]
        left = sum(of_epoch) - of_epoch[0] * (index + 1) / batches
        rate = images * (index + 1) / (now - self._epoch_started)
        seconds = (now - self._started) * left / self._pixels
        self.write_line(
            f"epoch {epoch + 1} of {epochs}, batch {index + 1} of {batches}: "
            f"{rate:.1f} images/s, {duration(seconds)} left"
        )

    def _image_pixels(self, epoch: int) -> int:
        recipe = self.training.recipe
        assert recipe is not None
        height, width = self.training.size(epoch)
        return recipe.crop**2 if recipe.crop else height * width
