"""Training: data, network and recipe in, a run out. pytorch-lightning is the engine."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import logging
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from tumorseg_runtime.bundle import sha256_of
from tumorseg_runtime.contract import Contract
from tumorseg_runtime.errors import InputError
from tumorseg_train.augment import Augmentation
from tumorseg_train.curves import draw_curves
from tumorseg_train.evaluate import evaluate
from tumorseg_train.loader import EpochSampler, SplitDataset
from tumorseg_train.losses import DiceBCELoss
from tumorseg_train.models import build_model, load_encoder_weights
from tumorseg_train.phantoms import NOTE
from tumorseg_train.recipe import Recipe
from tumorseg_train.run import CHECKPOINT, Run
from tumorseg_train.split import PARTS, SPLIT, Manifest

Batch = tuple[torch.Tensor, torch.Tensor]
CURVES, SCORES = "curves.csv", "test_scores.csv"


class SegmentationTask(lightning.LightningModule):
    """Loss, validation Dice and optimiser of a network under a recipe.

    Batches are (images float32 (N, C, h, w), masks float32 (N, K, h, w) of 0 and 1).
    """

    def __init__(self, model: torch.nn.Module, contract: Contract, recipe: Recipe, steps: int) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)
        self.loss = DiceBCELoss(recipe.bce_weight)
        self.contract = contract
        self.recipe = recipe
        self.steps = steps
        self.dice: list[float] = []

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        """Loss of one batch."""
        images, masks = batch
        logits = self.model(images.to(memory_format=torch.channels_last))
        loss: torch.Tensor = self.loss(logits, masks)
        self.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the Dice of the epoch before."""
        self.dice.clear()

    def validation_step(self, batch: Batch, index: int) -> None:
        """Loss, and Dice of each whole image that has a tumour."""
        images, masks = batch
        logits = self.model(images.to(memory_format=torch.channels_last))
        self.log("val_loss", self.loss(logits, masks), on_step=False, on_epoch=True, batch_size=len(images))
        predicted = logits >= self.contract.logit_threshold
        both = (predicted & (masks > 0)).sum(dim=(1, 2, 3))
        total = predicted.sum(dim=(1, 2, 3)) + masks.sum(dim=(1, 2, 3))
        has_tumour = masks.sum(dim=(1, 2, 3)) > 0
        self.dice.extend((2 * both / total)[has_tumour].tolist())

    def on_validation_epoch_end(self) -> None:
        """Mean Dice over the validation images that have a tumour."""
        self.log("val_dice", sum(self.dice) / len(self.dice), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """AdamW (Loshchilov & Hutter 2019) under a one-cycle schedule (Smith & Topin 2019)."""
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=recipe.learning_rate, total_steps=self.steps, pct_start=recipe.warmup
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Recorder(Callback):
    """After each epoch: a line said and in curves.csv, and the checkpoint if validation Dice is the best."""

    def __init__(self, out: Path, say: Callable[[str], None]) -> None:
        self.out = out
        self.say = say
        self.rows: list[dict[str, float]] = []
        self.best = -1.0
        self.best_epoch = -1
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Lightning calls it after the epoch's validation."""
        figures = {name: float(trainer.callback_metrics[name]) for name in ("val_loss", "val_dice")}
        row = {
            "epoch": trainer.current_epoch + 1,
            "train_loss": float(trainer.callback_metrics["train_loss_epoch"]),
            **figures,
            "seconds": time.perf_counter() - self._started,
        }
        self.rows.append(row)
        write_csv(self.out / CURVES, self.rows)
        self.say(
            f"epoch {row['epoch']:.0f} of {trainer.max_epochs}: training loss {row['train_loss']:.3f}, "
            f"validation loss {row['val_loss']:.3f}, Dice {row['val_dice']:.3f} ({row['seconds']:.0f} s)"
        )
        if figures["val_dice"] > self.best:
            self.best, self.best_epoch = figures["val_dice"], trainer.current_epoch + 1
            save_weights(module.model, self.out / CHECKPOINT)  # type: ignore[arg-type]


def write_csv(path: Path, rows: Sequence[Mapping[str, str | float]]) -> None:
    """Write rows of equal keys; numbers get six digits."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({k: v if isinstance(v, str) else f"{v:.6g}" for k, v in row.items()})


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hold back Lightning's advertising, and its warnings about choices that the recipe makes on purpose."""
    log = logging.getLogger("pytorch_lightning")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in (".*does not have many workers", ".*`isinstance.treespec, LeafSpec.`"):
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        log.setLevel(level)


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """Write the model's state as safetensors, whole or not at all."""
    part = path.with_name(path.name + ".part")
    save_file({name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}, part)
    part.replace(path)


def train(
    manifest: Manifest,
    out: Path,
    *,
    architecture: str,
    encoder: str,
    contract: Contract,
    recipe: Recipe,
    recipe_name: str,
    progress: bool,
    say: Callable[[str], None],
) -> Run:
    """Train a network and write the run into the empty or new folder `out`.

    The checkpoint is the epoch with the best mean Dice over the validation images that have a tumour; it is
    then judged once on the test part, beside the best global intensity threshold.
    progress: draw a progress bar; `say` gets a line per epoch either way.
    Raises InputError where the data or the recipe cannot be trained on.
    """
    started = time.perf_counter()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if recipe.precision == "16-mixed" and device == "cpu":
        raise InputError(
            "precision is 16-mixed, expected 32-true without a CUDA device: set it in the recipe"
        )
    if recipe.crop > min(contract.height, contract.width):
        raise InputError(f"crop is {recipe.crop}, expected at most {min(contract.height, contract.width)}")
    lightning.seed_everything(recipe.seed, verbose=False)
    training = SplitDataset(
        manifest, "train", contract,
        augmentation=Augmentation(recipe), repeats=recipe.crops_per_image, seed=recipe.seed,
    )  # fmt: skip
    validation = SplitDataset(manifest, "val", contract, limit=recipe.validation_images)
    if not any(item.tumour_px for item in validation.items):
        raise InputError("no validation image has a tumour, expected some: there is nothing to choose by")
    batches = len(training) // recipe.batch_size
    if not batches:
        raise InputError(
            f"an epoch has {len(training)} samples, expected at least one batch of {recipe.batch_size}: "
            "add images, or lower batch_size in the recipe"
        )
    model = build_model(architecture, encoder, channels=contract.channels, classes=len(contract.classes))
    load_encoder_weights(model, architecture, encoder, recipe.encoder_weights)
    task = SegmentationTask(model, contract, recipe, steps=batches * recipe.epochs)
    out.mkdir(parents=True, exist_ok=True)
    manifest.write(out / SPLIT)
    recorder = Recorder(out, say)
    with quiet_lightning():
        trainer = lightning.Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            precision=recipe.precision,  # type: ignore[arg-type]
            max_epochs=recipe.epochs,
            gradient_clip_val=recipe.gradient_clip,
            callbacks=[recorder, *([TQDMProgressBar()] if progress else [])],
            enable_progress_bar=progress,
            enable_checkpointing=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            logger=False,
            use_distributed_sampler=False,
            default_root_dir=out,
        )
        workers: dict[str, Any] = {"num_workers": recipe.workers, "persistent_workers": recipe.workers > 0}
        trainer.fit(
            task,
            DataLoader(
                training,
                recipe.batch_size,
                sampler=EpochSampler(len(training), recipe.seed),
                drop_last=True,
                **workers,
            ),
            DataLoader(validation, min(recipe.batch_size, 4), **workers),
        )
    draw_curves(recorder.rows, out / "curves.png")
    counts = {part: len(manifest.part(part)) for part in PARTS}
    run = Run(
        root=out,
        architecture=architecture,
        encoder=encoder,
        contract=contract,
        checkpoint_sha256=sha256_of(out / CHECKPOINT),
        data={
            "root": str(manifest.root.resolve()),
            "split_sha256": manifest.digest(),
            "phantoms": (manifest.root / NOTE).is_file(),
            "images": counts,
            "validation_images_used": len(validation.items),
        },
        training={
            "recipe": {"name": recipe_name, **vars(recipe)},
            "steps": batches * recipe.epochs,
            "seconds": round(time.perf_counter() - started, 1),
            "device": torch.cuda.get_device_name(0) if device == "cuda" else "cpu",
            "versions": {
                "python": platform.python_version(),
                **{
                    name: version(name)
                    for name in (
                        "tumorseg", "torch", "segmentation-models-pytorch", "albumentations",
                        "pytorch-lightning", "opencv-python-headless", "numpy",
                    )
                },
            },
        },
        metrics={"best_epoch": recorder.best_epoch, "validation": {"mean_dice": recorder.best}},
    )  # fmt: skip
    run.metrics["test"], scores = evaluate(run.model().to(device), manifest, "test", contract)
    write_csv(out / SCORES, [{**dataclasses.asdict(score), "dice": score.dice} for score in scores])
    run.write()
    return run
