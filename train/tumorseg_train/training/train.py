"""Training: plan and data in, a run out. pytorch-lightning is the engine."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import platform
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import EarlyStopping, WeightAveraging
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy
from torch.optim.swa_utils import get_ema_multi_avg_fn

from tumorseg_runtime.bundle.bundle import sha256_of
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.files import copy, make_folder
from tumorseg_runtime.core.progress import Lines
from tumorseg_train.config.plan import TrainingPlan
from tumorseg_train.config.recipe import Recipe
from tumorseg_train.data.data_module import SplitDataModule
from tumorseg_train.data.loader import SplitDataset
from tumorseg_train.data.phantoms import NOTE
from tumorseg_train.data.split import PARTS, SPLIT, Manifest
from tumorseg_train.evaluation.predictions import evaluate, torch_infer
from tumorseg_train.evaluation.threshold import choose_threshold
from tumorseg_train.networks.initial import load_initial_weights
from tumorseg_train.networks.models import build_model, load_encoder_weights
from tumorseg_train.networks.precision import speed_up_depthwise
from tumorseg_train.networks.run import CHECKPOINT, Run
from tumorseg_train.networks.statistics import estimate_statistics, is_folded
from tumorseg_train.training.checkpointing import CheckpointWriter, save_weights, write_csv
from tumorseg_train.training.curves import draw_curves
from tumorseg_train.training.distributed import check_equal, is_first, weights_digest
from tumorseg_train.training.lightning_module import SegmentationModule
from tumorseg_train.training.progress import Progress
from tumorseg_train.training.resumption import checkpoint_of
from tumorseg_train.training.stop import StopAtOnce

SCORES, TENSORBOARD = "test_scores.csv", "tensorboard"
STATISTICS = 64  # training images that give BatchNorm its statistics where a bundle holds none
PACKAGES = (
    "tumorseg", "torch", "segmentation-models-pytorch", "timm", "albumentations", "pytorch-lightning",
    "opencv-python-headless", "numpy",
)  # fmt: skip


def train(
    plan: TrainingPlan,
    manifest: Manifest,
    out: Path,
    *,
    log: Callable[[str], None],
    progress_seconds: float = 60,
) -> Run | None:
    """Train a network and write the run into the folder `out`, or go on with the one that lies there.

    The checkpoint is the epoch with the best mean Dice over the validation images that have a tumour. The
    whole validation part then chooses the contract's threshold, and the test part judges both once, beside
    the best global intensity threshold.
    log: gets a line per epoch and, every `progress_seconds`, how far it is.
    Without an epoch in the recipe the initial weights are taken as they are, and judged.
    Returns None in all processes of a distributed training but the first, which writes the run.
    Raises InputError where the data or the recipe cannot be trained on, BundleError where what it shall go on
    with is damaged.
    """
    training, validation = datasets(plan, manifest)
    resumed = checkpoint_of(out)
    task = make_task(plan, training, fresh=resumed is None)
    if is_first():
        make_folder(out)
        manifest.write(out / SPLIT)
        plan.write(out)
    recorder = CheckpointWriter(out, log)
    ours = [recorder, Progress(training, progress_seconds, log), StopAtOnce()]
    if plan.recipe.epochs:
        with quiet_lightning():
            trainer = make_trainer(plan, out, [*recipe_callbacks(plan.recipe), *ours])
            trainer.fit(task, SplitDataModule(training, validation), ckpt_path=resumed, weights_only=True)
    else:
        save_weights(task.model.state_dict(), recorder.best_weights)
    digests = gather_digests(task)
    check_equal(digests)
    if not is_first():
        return None
    copy(recorder.best_weights, out / CHECKPOINT)
    return finish(plan, manifest, out, recorder, task, digests, len(validation.items), log)


def datasets(plan: TrainingPlan, manifest: Manifest) -> tuple[SplitDataset, SplitDataset]:
    """Training and validation images; raises InputError where the plan cannot be carried out on them."""
    recipe, contract = plan.recipe, plan.contract
    side = min(recipe.scaled(contract.height, 0), recipe.scaled(contract.width, 0))
    if recipe.crop > side:
        raise InputError(
            f"crop is {recipe.crop}, expected at most {side}, the smallest side of an image: "
            f"--set crop={side}, or a larger --size"
        )
    if torch.cuda.is_available() and plan.devices > torch.cuda.device_count():
        raise InputError(
            f"devices is {plan.devices}, expected at most {torch.cuda.device_count()}, the CUDA devices here"
        )
    training = SplitDataset(manifest, "train", contract, recipe=recipe)
    validation = SplitDataset(manifest, "val", contract, limit=recipe.validation_images)
    if not any(item.tumour_px for item in validation.items):
        raise InputError("no validation image has a tumour, expected some: there is nothing to choose by")
    if len(validation) < plan.processes:
        raise InputError(
            f"{len(validation)} validation images for {plan.processes} processes, expected one each: "
            "--set validation_images=0 for all of them, or fewer --devices and --nodes"
        )
    if not len(training) // plan.processes // recipe.batch_size:
        raise InputError(
            f"an epoch has {len(training)} samples for {plan.processes} process(es), expected at least one "
            f"batch of {recipe.batch_size} each: add images, or give a smaller --batch-size"
        )
    return training, validation


def make_task(plan: TrainingPlan, training: SplitDataset, *, fresh: bool) -> SegmentationModule:
    """The network and what is done with it; its weights are loaded only if no checkpoint will bring them."""
    recipe, contract = plan.recipe, plan.contract
    lightning.seed_everything(recipe.seed, verbose=False)
    model = build_model(
        plan.architecture, plan.encoder, channels=contract.channels, classes=len(contract.classes)
    )
    if fresh and plan.initial_weights:
        load_initial_weights(model, plan.initial_weights)
        if recipe.epochs and is_folded(model):
            chosen = np.linspace(0, len(training) - 1, min(STATISTICS, len(training)), dtype=int)
            estimate_statistics(model, (training[int(i)][0] for i in chosen))
    elif fresh:
        load_encoder_weights(model, plan.architecture, plan.encoder, recipe.encoder_weights)
    if not torch.cuda.is_available():
        speed_up_depthwise(model)
    batches = len(training) // plan.processes // recipe.batch_size
    return SegmentationModule(model, contract, recipe, steps=-(-batches // recipe.accumulate) * recipe.epochs)


def recipe_callbacks(recipe: Recipe) -> list[lightning.Callback]:
    """Lightning's running average of the weights, which is then validated and kept, and early stopping."""
    callbacks: list[lightning.Callback] = []
    if recipe.average:
        average = get_ema_multi_avg_fn(recipe.average)  # type: ignore[no-untyped-call]
        device = "cuda" if torch.cuda.is_available() else None  # else the CPU: the network is not there yet
        callbacks.append(WeightAveraging(device, multi_avg_fn=average))
    if recipe.patience:
        stopping = EarlyStopping(
            "val_dice", patience=recipe.patience, mode="max", check_on_train_epoch_end=False
        )
        callbacks.append(stopping)  # after validation, so that the epoch's checkpoint has its state
    return callbacks


def make_trainer(plan: TrainingPlan, out: Path, callbacks: list[lightning.Callback]) -> lightning.Trainer:
    """Lightning's trainer for the plan; the callbacks keep the checkpoints."""
    recipe = plan.recipe
    return lightning.Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=plan.devices,
        num_nodes=plan.nodes,
        strategy=distributed() if plan.processes > 1 else "auto",
        precision=recipe.precision,  # type: ignore[arg-type]
        max_epochs=recipe.epochs,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.gradient_clip or None,
        deterministic=recipe.deterministic,
        benchmark=not recipe.deterministic,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        logger=TensorBoardLogger(out, name="", version=TENSORBOARD, default_hp_metric=False),
        use_distributed_sampler=False,
        default_root_dir=out,
    )


def distributed() -> DDPStrategy:
    """Gradients averaged over all processes.

    Each process keeps BatchNorm statistics of its own batches; the task averages them before validation.
    Some encoders of smp hold layers of their classifier, which no loss reaches.
    """
    return DDPStrategy(broadcast_buffers=False, find_unused_parameters=True)


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hold back Lightning's advertising, and its warnings about choices that the recipe makes on purpose."""
    log = logging.getLogger("pytorch_lightning")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in (
                ".*does not have many workers",
                ".*`isinstance.treespec, LeafSpec.`",
                ".*exists and is not empty",  # the run's own folder, when it is resumed
            ):
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        log.setLevel(level)


def gather_digests(task: SegmentationModule) -> list[str]:
    """SHA-256 of the network that each process holds, by its number."""
    own = weights_digest(task.model)
    if not torch.distributed.is_initialized():
        return [own]
    digests: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(digests, own)
    return digests


def finish(
    plan: TrainingPlan,
    manifest: Manifest,
    out: Path,
    recorder: CheckpointWriter,
    task: SegmentationModule,
    digests: list[str],
    validation_images: int,
    log: Callable[[str], None],
) -> Run:
    """Choose the threshold on the validation part, judge the best weights on the test part, write the run."""
    if recorder.rows:
        draw_curves(recorder.rows, out / "curves.png")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    run = Run(
        root=out,
        architecture=plan.architecture,
        encoder=plan.encoder,
        contract=plan.contract,
        checkpoint_sha256=sha256_of(out / CHECKPOINT),
        data={
            "root": plan.data,
            "split_sha256": manifest.digest(),
            "phantoms": (manifest.root / NOTE).is_file(),
            "images": {part: len(manifest.part(part)) for part in PARTS},
            "validation_images_used": validation_images,
        },
        training={
            "recipe": {"name": plan.recipe_name, **vars(plan.recipe)},
            "initial_weights": plan.initial_weights and dataclasses.asdict(plan.initial_weights),
            "steps": task.steps,
            "epochs": len(recorder.rows),
            "seconds": round(recorder.rows[-1]["seconds"], 1) if recorder.rows else 0.0,
            "device": torch.cuda.get_device_name(0) if device == "cuda" else "cpu",
            "devices": plan.devices,
            "nodes": plan.nodes,
            "final_weights_sha256": digests,
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in PACKAGES},
            },
        },
        metrics={
            "best_epoch": recorder.best_epoch,
            "validation": {"mean_dice": recorder.best} if recorder.rows else {},
        },
    )
    model = run.model().to(device)
    tell = Lines("choosing the threshold on the validation part", log)
    best = choose_threshold(torch_infer(model, plan.contract), manifest, plan.contract, tell=tell)[0]
    run.metrics["threshold"] = dataclasses.asdict(best)
    run = dataclasses.replace(run, contract=dataclasses.replace(plan.contract, threshold=best.threshold))
    run.metrics["test"], scores = evaluate(
        model, manifest, "test", run.contract, Lines("judging on the test part", log)
    )
    write_csv(out / SCORES, [{**dataclasses.asdict(score), "dice": score.dice} for score in scores])
    run.write()
    recorder.best_weights.unlink()
    return run
