"""The task: what Lightning does with a batch, and the optimiser that a recipe asks for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch

from tumorseg_runtime.core.contract import Contract
from tumorseg_train.config.recipe import Recipe
from tumorseg_train.training.losses import build_loss

Batch = tuple[torch.Tensor, torch.Tensor]

FLOOR = 1e-3  # share of the peak
SHAPES: dict[str, Callable[[float], float]] = {  # progress 0..1 after the warm-up -> share 1..0 of the fall
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,  # Loshchilov & Hutter 2017
    "linear": lambda x: 1 - x,
    "constant": lambda x: 1.0,
}


class SegmentationModule(lightning.LightningModule):
    """Loss, validation Dice and optimiser of a network under a recipe.

    Batches are (images float32 (N, C, h, w), masks float32 (N, K, h, w) of 0 and 1). steps: optimiser steps
    of the whole training, which the schedule spans.
    """

    def __init__(self, model: torch.nn.Module, contract: Contract, recipe: Recipe, steps: int) -> None:
        super().__init__()
        self.layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.model = model.to(memory_format=self.layout)
        self.loss = build_loss(recipe.loss, recipe.bce_weight, recipe.epsilon)
        self.contract = contract
        self.recipe = recipe
        self.steps = steps
        self.sums = torch.zeros(4)

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        """Dropout's draws are a function of seed, epoch, batch and process: a restart does not move them."""
        numbers = (self.recipe.seed, self.current_epoch, index, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        """Loss of one batch."""
        images, masks = batch
        logits = self.model(images.to(memory_format=self.layout))
        loss: torch.Tensor = self.loss(logits.float(), masks)
        self.log("train_loss", loss, on_step=True, on_epoch=True, sync_dist=self.trainer.world_size > 1)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the figures of the epoch before, and make the processes' networks one."""
        self.sums = torch.zeros(4, device=self.device)
        self.average_buffers()

    def average_buffers(self) -> None:
        """Give all processes the same BatchNorm statistics."""
        if self.trainer.world_size > 1:
            for buffer in self.buffers():  # they are of each process's own batches
                if buffer.is_floating_point():
                    buffer.copy_(self.trainer.strategy.reduce(buffer, reduce_op="mean"))

    def validation_step(self, batch: Batch, index: int) -> None:
        """Loss, and Dice of each whole image that has a tumour."""
        images, masks = batch
        logits = self.model(images.to(memory_format=self.layout)).float()
        predicted = logits >= self.contract.logit_threshold
        both = (predicted & (masks > 0)).sum(dim=(1, 2, 3))
        truth = masks.sum(dim=(1, 2, 3))
        dice = (2 * both / (predicted.sum(dim=(1, 2, 3)) + truth))[truth > 0]
        self.sums[0] += dice.sum()
        self.sums[1] += len(dice)
        self.sums[2] += self.loss(logits, masks) * len(images)
        self.sums[3] += len(images)

    def on_validation_epoch_end(self) -> None:
        """Mean loss, and mean Dice over the validation images that have a tumour, of all processes."""
        sums = self.trainer.strategy.reduce(self.sums, reduce_op="sum")
        assert isinstance(sums, torch.Tensor)
        self.log("val_dice", sums[0] / sums[1])
        self.log("val_loss", sums[2] / sums[3])
        self.average_buffers()  # once more: of the weights themselves, where their average was validated

    def configure_optimizers(self) -> Any:
        """AdamW (Loshchilov & Hutter 2019) under the recipe's schedule."""
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: factor(min(step, self.steps - 1), self.steps, recipe.warmup, recipe.schedule),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def factor(step: int, steps: int, warmup: float, schedule: str) -> float:
    """Share of the peak learning rate in step 0 <= step < steps; `warmup`: share of the steps that climb."""
    climb = round(warmup * steps)
    if step < climb:
        return (step + 1) / (climb + 1)
    progress = min(1.0, (step - climb) / max(1, steps - climb - 1))
    return FLOOR + (1 - FLOOR) * SHAPES[schedule](progress)
