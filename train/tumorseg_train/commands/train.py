"""`tumorseg train`: images -> a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tumorseg_runtime.cli.options import PATH, RUN, Existing, by_make, command, given, out_option, spoken
from tumorseg_runtime.cli.terminal import say_text
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.files import move
from tumorseg_runtime.core.paths import require
from tumorseg_runtime.core.progress import Lines
from tumorseg_runtime.core.stop import resumable
from tumorseg_train.commands.dataset_options import FIELDS, DatasetOptions, dataset_options
from tumorseg_train.config.plan import PLAN, TrainingPlan
from tumorseg_train.config.recipe import load_recipe, parse_settings
from tumorseg_train.data.datasets import find_samples
from tumorseg_train.data.phantoms import NOTE, PHANTOMS_FLAG, ensure_data
from tumorseg_train.data.split import SPLIT, Manifest, make_manifest
from tumorseg_train.layouts.volumes import same_content
from tumorseg_train.training.distributed import is_first

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

ALONE = ("resume", "report", "as_json", "quiet")  # what goes with --resume


@dataclass(frozen=True)
class TrainOptions(DatasetOptions):
    """Of `tumorseg train`: data and out, or resume. None in the rest: the recipe's."""

    data: Path | None
    out: Path | None
    resume: Path | None
    init: Path | None
    arch: str
    encoder: str
    encoder_weights: str | None
    size: int
    recipe: str
    epochs: int | None
    batch_size: int | None
    seed: int | None
    deterministic: bool | None
    settings: tuple[str, ...]
    split: str
    devices: int
    nodes: int
    report: float
    phantoms: bool


@command(
    TrainOptions,
    example="tumorseg train data --out runs/first --recipe quick",
    sections={
        "Network": ("arch", "encoder", "encoder_weights", "size", "init"),
        "Recipe": ("recipe", "epochs", "batch_size", "seed", "deterministic", "settings"),
        "Data": ("split", "phantoms", *FIELDS),
        "Machines": ("devices", "nodes"),
    },
)
@click.argument("data", type=PATH, required=False)
@out_option(help="Folder of the run.")
@click.option(
    "--resume", type=Existing("the folder of a training", PLAN), metavar="RUN",
    help="Go on with a training that was broken off, from its last whole epoch. Takes no other flags "
    "than --report, --json and --quiet.",
)  # fmt: skip
@click.option(
    "--init", type=Existing("a run or a file of weights", RUN, PLAN), metavar="RUN|FILE",
    help="Start from the weights of a run, finished or broken off, or of a file (.safetensors), of the same "
    "architecture and encoder, at any size. With --epochs 0 they are taken as they are.",
)  # fmt: skip
@click.option(
    "--arch", default="unetplusplus", show_default=True,
    help="unetplusplus, unet, deeplabv3, or another of segmentation-models-pytorch.",
)  # fmt: skip
@click.option(
    "--encoder", default="resnet34", show_default=True, help="Any encoder of segmentation-models-pytorch."
)
@click.option("--encoder-weights", help="imagenet, none, or a file [default: the recipe's].")
@click.option(
    "--size", default=512, show_default=True, help="Height and width of the network's input in pixels."
)
@click.option(
    "--recipe", default="auto", show_default=True,
    help="auto (full with a CUDA device, else quick), quick, cpu, full, or a TOML file.",
)  # fmt: skip
@click.option("--epochs", type=int, help="Passes over the training images [default: the recipe's].")
@click.option("--batch-size", type=int, help="Samples in a batch [default: the recipe's].")
@click.option("--seed", type=int, help="Of the split, the weights and every draw [default: the recipe's].")
@click.option("--deterministic", is_flag=True, default=None, help="The same bits from the same seed.")
@click.option(
    "--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Any other field of the recipe."
)
@click.option(
    "--split", type=click.Choice(["grouped", "random"]), default="grouped", show_default=True,
    help="grouped keeps patients and near-duplicates on one side; random shows what their leak is worth.",
)  # fmt: skip
@dataset_options
@click.option(
    "--devices", type=click.IntRange(1), default=1, show_default=True,
    help="Processes (or GPUs) on each machine.",
)  # fmt: skip
@click.option("--nodes", type=click.IntRange(1), default=1, show_default=True, help="Machines.")
@click.option(
    "--report", default=60.0, show_default=True, metavar="SECONDS", help="How often it says how far it is."
)
@click.option(
    PHANTOMS_FLAG,
    is_flag=True,
    help="Draw phantoms into DATA if it does not exist; `data` needs no flag.",
)
def train(options: TrainOptions) -> None:
    """Train a network on the images under DATA and write a run.

    DATA is a folder as in docs/data.md; `data` gets phantoms if it does not exist. A finished or broken-off
    run that lies at --out is moved aside, never overwritten.
    """

    def log(line: str) -> None:
        if is_first():
            options.log(line)

    data, out = options.data, options.out
    if options.resume is not None:
        if unused := given(*ALONE):
            also = ", ".join(unused)
            raise InputError(f"--resume goes on with the run's own plan, got also {also}: leave them out")
        out = options.resume
        plan, manifest = reopen(out)
        log(f"{out}: going on with {plan.architecture} {plan.encoder}, {plan.recipe.epochs} epochs")
    elif data is None or out is None:
        raise click.UsageError("expected DATA and --out RUN, or --resume RUN")
    else:
        if options.init and options.init.resolve().is_relative_to(out.resolve()):
            raise InputError(f"--init {options.init} lies in --out {out}, expected another --out: choose one")
        check_room(out)
        plan, manifest = prepare(data, options, log)
        if is_first() and (aside := move_aside(out)):
            log(f"{out} held a run, which is now {aside}")
    from tumorseg_train.networks.run import INDEX  # torch comes with these two: checks come before
    from tumorseg_train.training.train import train as run_training

    with resumable(lambda: how_to_go_on(out)):
        run = run_training(plan, manifest, out, log=log, progress_seconds=options.report)
    if run is not None:
        say_text((out / INDEX).read_text(encoding="utf-8") if options.as_json else describe(run))
        options.verdict(f"run: {run.root}")


def how_to_go_on(out: Path) -> str:
    """What the line of a training that was stopped says; '' in all processes but the first."""
    from tumorseg_train.training.checkpointing import RESUME

    if not is_first():
        return ""
    if not (out / RESUME).is_file():
        return "no epoch was whole yet: run the same command again"
    return f"go on after the last whole epoch: {spoken('train', '--resume', out)}"


def prepare(data: Path, options: TrainOptions, log: Callable[[str], None]) -> tuple[TrainingPlan, Manifest]:
    """Plan and split of a new training; raises InputError, for paths and flags before torch is imported."""
    if not is_first():
        require(data, "the images", "run `tumorseg data prepare` first")
    overrides = {
        field: value
        for field in ("encoder_weights", "epochs", "batch_size", "seed", "deterministic")
        if (value := getattr(options, field)) is not None
    }
    changes = {**parse_settings(options.settings), **overrides}
    named = load_recipe("quick" if options.recipe == "auto" else options.recipe, **changes)
    if named.encoder_weights not in ("imagenet", "none"):
        require(
            Path(named.encoder_weights), "imagenet, none, or a file of weights", "check --encoder-weights"
        )
    if options.init and options.encoder_weights:
        raise InputError("--init brings the encoder's weights, got also --encoder-weights: leave one out")
    if options.epochs == 0 and not options.init:
        raise InputError("--epochs is 0, expected 1 or more without --init: there are no weights to take")
    Contract(height=options.size, width=options.size)
    if ensure_data(data, asked=options.phantoms, tell=Lines("drawing phantoms", log)):
        log(f"{data} did not exist: phantoms were drawn into it (docs/data.md)")
    declared = options.declared(data)
    find_samples(data, declared)

    import torch

    from tumorseg_train.networks.initial import check_unseen, initial_weights
    from tumorseg_train.networks.models import (
        encoder_normalisation,
        require_architecture,
        require_encoder,
    )
    from tumorseg_train.networks.precision import resolve_precision

    require_architecture(options.arch)
    require_encoder(options.encoder)
    name = options.recipe
    if name == "auto":
        name = "full" if torch.cuda.is_available() else "quick"
        other = "quick" if name == "full" else "cpu"
        flag = f"RECIPE={other}" if by_make() else f"--recipe {other}"
        log(
            f"recipe full (a CUDA device is here); {flag} shows the chain in minutes"
            if name == "full"
            else f"recipe quick (no CUDA device) shows the chain in minutes; a good network needs {flag}"
        )
    asked = load_recipe(name, **changes)
    chosen = resolve_precision(asked)
    if chosen != asked:
        log(f"precision {chosen.precision} (what this machine does best)")
    mean, std = encoder_normalisation(options.encoder, chosen.encoder_weights)
    contract = Contract(height=options.size, width=options.size, mean=mean, std=std)
    initial = None
    if options.init:
        initial = initial_weights(options.init, options.arch, options.encoder, contract)
        chosen = replace(chosen, encoder_weights="none")  # the initial ones take their place
        log(f"initial weights: {initial.path}")
    tell = Lines("reading images and masks", log)
    manifest = make_manifest(data, chosen.seed, method=options.split, declared=declared, tell=tell)
    unknown = options.init and check_unseen(options.init, manifest)
    if unknown and not (manifest.root / NOTE).is_file():  # nobody else trained on these phantoms
        log(f"warning: {unknown}")
    counts = ", ".join(f"{len(manifest.part(part))} {part}" for part in ("train", "val", "test"))
    log(f"{data}: {len(manifest.items)} images: {counts}")
    root = str(manifest.root.resolve())
    plan = TrainingPlan(
        root, options.arch, options.encoder, contract, chosen, name, options.devices, options.nodes, initial
    )
    return plan, manifest


def reopen(out: Path) -> tuple[TrainingPlan, Manifest]:
    """Plan and split of a training that was broken off; raises InputError and BundleError."""
    plan = TrainingPlan.read(out)
    if (out / RUN).is_file():
        raise InputError(f"{out}: is finished, expected a training that was broken off: start a new one")
    manifest = Manifest.read(out / SPLIT, root=Path(plan.data))
    for item in manifest.items:
        for name, expected in item.files.items():
            path = manifest.root / name
            if not same_content(path, expected):
                raise InputError(f"{path}: is missing or changed since the training began: bring it back")
    return plan, manifest


def check_room(out: Path) -> bool:
    """True where a run lies at `out`, False where nothing does; raises InputError for other things."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / SPLIT).is_file():
        raise InputError(f"{out}: exists and is no run, expected a new or empty folder: choose another --out")
    return True


def move_aside(out: Path) -> Path | None:
    """Make room for a run; returns where an earlier one went. Raises InputError for other things there."""
    if not check_room(out):
        return None
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime((out / SPLIT).stat().st_mtime))
    aside = out.with_name(f"{out.name}-{stamp}")
    move(out, aside)
    return aside


def describe(run: Run) -> str:
    """The figures of a run, a line each."""
    test, training, chosen = run.metrics["test"], run.training, run.metrics["best_epoch"]
    baseline = test["threshold_baseline"]
    organs = ", ".join(f"{organ} {dice:.3f}" for organ, dice in test["by_organ"].items())
    healthy = test["images"] - test["images_with_tumour"]
    trained = "initial weights as they are"
    if training["epochs"]:
        trained = (
            f"{training['steps']} steps in {training['seconds']:.0f} s "
            f"on {training['device']}; best epoch {chosen} of {training['recipe']['epochs']}, "
            f"validation Dice {run.metrics['validation']['mean_dice']:.3f}"
        )
    return (
        f"{run.architecture} {run.encoder}: {trained}\n"
        f"test at {run.contract.height}x{run.contract.width}: mean Dice {test['mean_dice']:.3f} "
        f"over {test['images_with_tumour']} images with a tumour ({organs}), "
        f"pooled F1 {test['pooled_f1']:.3f}; "
        f"{test['healthy_left_empty']} of {healthy} images without a tumour left empty\n"
        f"best single global threshold on the same images: mean Dice {baseline['mean_dice']:.3f} "
        f"(tumour {baseline['tumour']} {baseline['threshold']})"
    )
