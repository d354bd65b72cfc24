"""`tumorseg train`: images -> a run."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tumorseg_runtime.contract import Contract
from tumorseg_runtime.errors import InputError
from tumorseg_train.split import SPLIT

if TYPE_CHECKING:
    from tumorseg_train.run import Run


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--arch", default="unetplusplus", show_default=True, help="unetplusplus, unet or deeplabv3.")
@click.option(
    "--encoder", default="resnet34", show_default=True, help="Any encoder of segmentation-models-pytorch."
)
@click.option("--encoder-weights", help="imagenet, none, or a file [default: the recipe's].")
@click.option(
    "--size", default=512, show_default=True, help="Height and width of the network's input in pixels."
)
@click.option(
    "--recipe", default="auto", show_default=True,
    help="auto (full with a CUDA device, else quick), quick, full, or a TOML file.",
)  # fmt: skip
@click.option("--epochs", type=int, help="Passes over the training images [default: the recipe's].")
@click.option("--batch-size", type=int, help="Samples in a step [default: the recipe's].")
@click.option("--seed", type=int, help="Of the split, the weights and every draw [default: the recipe's].")
@click.option("--json", "as_json", is_flag=True, help="Print run.json instead of a summary.")
def train(
    data: Path,
    out: Path,
    arch: str,
    encoder: str,
    encoder_weights: str | None,
    size: int,
    recipe: str,
    epochs: int | None,
    batch_size: int | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Train a network on the images under DATA and write a run.

    DATA is a folder as in docs/data.md; if it does not exist, phantoms are drawn into it. A finished or
    broken-off run that lies at --out is moved aside, never overwritten.
    """
    import torch

    from tumorseg_train.models import encoder_normalisation
    from tumorseg_train.phantoms import ensure_data
    from tumorseg_train.recipe import load_recipe
    from tumorseg_train.run import INDEX
    from tumorseg_train.split import make_manifest
    from tumorseg_train.training import train as run_training

    name = recipe
    if recipe == "auto":
        name = "full" if torch.cuda.is_available() else "quick"
        reason = "a CUDA device is here" if name == "full" else "no CUDA device"
        other = "quick" if name == "full" else "full"
        click.echo(f"recipe {name} ({reason}); the other one: make train RECIPE={other}", err=True)
    chosen = load_recipe(
        name, encoder_weights=encoder_weights, epochs=epochs, batch_size=batch_size, seed=seed
    )
    mean, std = encoder_normalisation(encoder, chosen.encoder_weights)
    contract = Contract(height=size, width=size, mean=mean, std=std)
    if ensure_data(data):
        click.echo(f"{data} did not exist: phantoms were drawn into it (docs/data.md)", err=True)
    manifest = make_manifest(data, chosen.seed)
    counts = ", ".join(f"{len(manifest.part(part))} {part}" for part in ("train", "val", "test"))
    click.echo(f"{data}: {len(manifest.items)} images: {counts}", err=True)
    aside = move_aside(out)
    if aside:
        click.echo(f"{out} held a run, which is now {aside}", err=True)
    run = run_training(
        manifest, out,
        architecture=arch, encoder=encoder, contract=contract, recipe=chosen, recipe_name=name,
        progress=sys.stderr.isatty(), say=lambda line: click.echo(line, err=True),
    )  # fmt: skip
    click.echo((out / INDEX).read_text(encoding="utf-8") if as_json else describe(run))


def move_aside(out: Path) -> Path | None:
    """Make room for a run; returns where an earlier one went.

    Raises InputError for a folder that holds other things.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / SPLIT).is_file():
        raise InputError(f"{out}: exists and is no run, expected a new or empty folder: choose another --out")
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime((out / SPLIT).stat().st_mtime))
    aside = out.with_name(f"{out.name}-{stamp}")
    out.rename(aside)
    return aside


def describe(run: Run) -> str:
    """The figures of a run, a line each."""
    test, training, chosen = run.metrics["test"], run.training, run.metrics["best_epoch"]
    baseline = test["threshold_baseline"]
    organs = ", ".join(f"{organ} {dice:.3f}" for organ, dice in test["by_organ"].items())
    healthy = test["images"] - test["images_with_tumour"]
    return (
        f"{run.architecture} {run.encoder}: {training['steps']} steps in {training['seconds']:.0f} s "
        f"on {training['device']}; best epoch {chosen} of {training['recipe']['epochs']}, "
        f"validation Dice {run.metrics['validation']['mean_dice']:.3f}\n"
        f"test at {run.contract.height}x{run.contract.width}: mean Dice {test['mean_dice']:.3f} "
        f"over {test['images_with_tumour']} images with a tumour ({organs}), "
        f"pooled F1 {test['pooled_f1']:.3f}; "
        f"{test['healthy_left_empty']} of {healthy} images without a tumour left empty\n"
        f"best single global threshold on the same images: mean Dice {baseline['mean_dice']:.3f} "
        f"(tumour {baseline['tumour']} {baseline['threshold']})\n"
        f"run: {run.root}"
    )
