"""What a training leaves after each epoch, so that a process that is killed loses the epoch at most.

curves.csv                 a row per epoch
epoch-0007.safetensors     the weights judged best so far, under the number of their epoch (from 1)
resume.ckpt                everything that Lightning needs to go on after the last whole epoch

Each file is written whole or not at all, and in this order; then the best weights of before are removed.
A process that dies in between leaves a `resume.ckpt` whose best weights are still there.
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback
from safetensors.torch import save_file

from tumorseg_runtime.core.errors import TumorsegError
from tumorseg_runtime.core.files import write_text, writing
from tumorseg_train.networks.weights_file import SPLIT_SHA256

CURVES, RESUME = "curves.csv", "resume.ckpt"


class CheckpointWriter(Callback):
    """Keeps curves, best weights and checkpoint, says a line per epoch.

    Its place is behind Lightning's callbacks for the average of the weights and for early stopping, whose
    state it saves.
    """

    def __init__(self, out: Path, log: Callable[[str], None]) -> None:
        self.out = out
        self.write_line = log  # not `log`: Lightning puts its own there
        self.rows: list[dict[str, float]] = []
        self.best = -1.0
        self.best_epoch = 0
        self._started = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training must know, in its checkpoint."""
        return {"rows": self.rows, "best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`; the seconds count on from the last row's."""
        self.rows, self.best, self.best_epoch = state["rows"], state["best"], state["best_epoch"]
        self._started = time.perf_counter() - self.rows[-1]["seconds"]

    @property
    def best_weights(self) -> Path:
        """Weights of the best epoch."""
        return self.out / f"epoch-{self.best_epoch:04d}.safetensors"

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """A training that had ended early does not go on when it is resumed."""
        stopper = trainer.early_stopping_callback
        trainer.should_stop = stopper is not None and stopper.stopped_epoch > 0

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the weights of the best epoch: those in the checkpoint, their average where there is one."""
        if trainer.is_global_zero and self.best_epoch == trainer.current_epoch + 1:
            state = checkpoint["state_dict"].items()
            save_weights(
                {k.removeprefix("model."): v for k, v in state if k.startswith("model.")}, self.best_weights
            )

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Lightning calls it in every process, after the epoch's validation."""
        metrics = trainer.callback_metrics
        row = {
            "epoch": trainer.current_epoch + 1,
            "train_loss": float(metrics["train_loss_epoch"]),
            "val_loss": float(metrics["val_loss"]),
            "val_dice": float(metrics["val_dice"]),
            "learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "seconds": time.perf_counter() - self._started,
        }
        if not math.isfinite(row["train_loss"]):
            raise TumorsegError(
                f"training loss is {row['train_loss']} in epoch {row['epoch']}, expected a finite number: "
                "train anew with a lower learning_rate, or with precision 32-true"
            )
        self.rows.append(row)
        if row["val_dice"] > self.best:
            self.best, self.best_epoch = row["val_dice"], trainer.current_epoch + 1
        first = trainer.is_global_zero
        with writing(self.out / RESUME) if first else contextlib.nullcontext(self.out / RESUME) as part:
            trainer.save_checkpoint(part)  # in every process: Lightning gathers what they hold
            if first:
                write_csv(self.out / CURVES, self.rows)
        if first:
            for path in self.out.glob("epoch-*"):  # also what a process left that died while it wrote
                if path != self.best_weights:
                    path.unlink()
        self.write_line(
            f"epoch {row['epoch']} of {trainer.max_epochs}: training loss {row['train_loss']:.3f}, "
            f"validation loss {row['val_loss']:.3f}, Dice {row['val_dice']:.3f} ({row['seconds']:.0f} s)"
        )
        if trainer.should_stop:
            epochs = trainer.current_epoch + 1 - self.best_epoch
            self.write_line(f"no better Dice in {epochs} epochs: the training ends here")


def write_csv(path: Path, rows: Sequence[Mapping[str, str | float]]) -> None:
    """Write rows of equal keys, whole or not at all; numbers get six digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({k: v if isinstance(v, str) else f"{v:.6g}" for k, v in row.items()})
    write_text(path, text.getvalue())


def save_weights(state: Mapping[str, torch.Tensor], path: Path, split_sha256: str = "") -> None:
    """Write a network's state as safetensors, whole or not at all, and the split that it was trained on."""
    known = {SPLIT_SHA256: split_sha256} if split_sha256 else None
    with writing(path) as part:
        save_file({name: tensor.contiguous().cpu() for name, tensor in state.items()}, part, known)
