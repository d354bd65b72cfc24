"""How many augmented samples a loader makes per second on one core: the plain loop of notebooks, and ours.

    python benchmarks/loader_speed.py DATA [--size 512] [--images 120] [--rounds 5]

The loop reads both files for every sample, converts BGR to RGB, and lets Albumentations resize, flip, rotate,
normalise and make tensors. Ours is `SplitDataset` with the recipe `full` less its intensity draws, which the
loop has not: first an epoch that reads the files, then one from memory. The same images, one process, one
thread, rounds in turn; the medians of images per second are told.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A
import click
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2

from tumorseg_runtime.cli.main import one_line_errors
from tumorseg_runtime.core.contract import IMAGENET_MEAN, IMAGENET_STD, Contract
from tumorseg_train.config.recipe import load_recipe
from tumorseg_train.data.loader import SplitDataset
from tumorseg_train.data.split import Item, Manifest, make_manifest

Sample = Callable[[int], Any]


def plain_loop(root: Path, items: tuple[Item, ...], size: int) -> Sample:
    """The loop of notebooks: sample by index."""
    compose = A.Compose(
        [
            A.Resize(size, size),
            A.HorizontalFlip(p=0.5),
            A.Rotate(limit=30, p=1),
            A.Normalize(mean=IMAGENET_MEAN, std=IMAGENET_STD),
            ToTensorV2(),
        ]
    )

    def sample(index: int) -> tuple[torch.Tensor, torch.Tensor]:
        item = items[index]
        pixels = cv2.imread(str(root / item.image))
        assert pixels is not None
        image = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        mask = np.zeros(image.shape[:2], np.float32)
        for name in item.masks:
            lesion = cv2.imread(str(root / name), cv2.IMREAD_GRAYSCALE)
            assert lesion is not None
            mask = np.maximum(mask, np.asarray(lesion > 0, np.float32))
        done = compose(image=image, mask=mask)
        return done["image"], done["mask"][None]

    return sample


def rate(sample: Sample, images: int) -> float:
    """Samples per second of processor time."""
    started = time.process_time()
    for index in range(images):
        sample(index)
    return images / (time.process_time() - started)


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--size", default=512, show_default=True, help="Side of the samples in pixels.")
@click.option("--images", default=120, show_default=True, help="Images in a round.")
@click.option("--rounds", default=5, show_default=True)
@one_line_errors()
def main(data: Path, size: int, images: int, rounds: int) -> None:
    """Compare the two loaders on the training images of DATA."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    manifest = make_manifest(data)
    step = max(1, len(manifest.part("train")) // images)
    items = manifest.part("train")[::step][:images]  # of every organ and class
    chosen = Manifest(manifest.root, manifest.seed, items)
    recipe = load_recipe("full", brightness=0.0, contrast=0.0)
    contract = Contract(height=size, width=size)
    loop = plain_loop(manifest.root, items, size)
    figures: dict[str, list[float]] = {"loop": [], "ours, first epoch": [], "ours, later epochs": []}
    for _ in range(rounds):
        dataset = SplitDataset(chosen, "train", contract, recipe=recipe)
        figures["loop"].append(rate(loop, len(items)))
        figures["ours, first epoch"].append(rate(lambda index: dataset[0, index], len(items)))  # noqa: B023
        figures["ours, later epochs"].append(rate(lambda index: dataset[1, index], len(items)))  # noqa: B023
    base = statistics.median(figures["loop"])
    for name, values in figures.items():
        median = statistics.median(values)
        click.echo(
            f"{name}: {median:.0f} samples/s ({min(values):.0f} to {max(values):.0f}), {median / base:.2f}x"
        )


if __name__ == "__main__":
    main()
