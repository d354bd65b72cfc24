"""What a step of training costs on a CPU, with depthwise convolutions as torch computes them and as ours.

    python benchmarks/step_speed.py [--arch deeplabv3] [--encoder timm-tf_efficientnet_lite0] [--size 256]

A step is forward, Dice + BCE and backward of one batch, in the precision that a training takes here.
Steps in turn on one thread, in seconds of processor time, so that other work beside them weighs little; the
medians are told, and the median of the rounds' ratios with their extremes.
"""

from __future__ import annotations

import statistics
import time

import click
import torch

from tumorseg_runtime.cli.main import one_line_errors
from tumorseg_train.config.recipe import load_recipe
from tumorseg_train.networks.models import build_model
from tumorseg_train.networks.precision import resolve_precision, speed_up_depthwise
from tumorseg_train.training.losses import build_loss


def seconds_of_step(model: torch.nn.Module, images: torch.Tensor, masks: torch.Tensor, bf16: bool) -> float:
    """Processor time of one step in seconds; images float32 (N, 3, h, w), masks float32 (N, 1, h, w)."""
    loss = build_loss("dice+bce", 1.0, 1.0)
    model.zero_grad()
    started = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model(images)
    loss(logits.float(), masks).backward()
    return time.process_time() - started


@click.command()
@click.option("--arch", default="deeplabv3", show_default=True)
@click.option("--encoder", default="timm-tf_efficientnet_lite0", show_default=True)
@click.option("--size", default=256, show_default=True, help="Side of the images in pixels.")
@click.option("--batch-size", default=8, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@one_line_errors()
def main(arch: str, encoder: str, size: int, batch_size: int, rounds: int) -> None:
    """Compare a step with and without the repair."""
    torch.set_num_threads(1)
    precision = resolve_precision(load_recipe("cpu")).precision
    images = torch.randn(batch_size, 3, size, size).contiguous(memory_format=torch.channels_last)
    masks = (torch.rand(batch_size, 1, size, size) > 0.9).float()
    models = {}
    for name in ("torch's", "ours"):
        model = build_model(arch, encoder, channels=3, classes=1).train()
        models[name] = model.to(memory_format=torch.channels_last)
    speed_up_depthwise(models["ours"])
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds + 1):
        for name, model in models.items():
            seconds[name].append(seconds_of_step(model, images, masks, precision == "bf16-mixed"))
    plain, ours = (values[1:] for values in seconds.values())  # the first round warms up
    ratios = [one / other for one, other in zip(plain, ours, strict=True)]
    click.echo(
        f"{arch} {encoder}, {size}x{size}, batch {batch_size}, {precision}: torch's "
        f"{statistics.median(plain):.2f} s, ours {statistics.median(ours):.2f} s, "
        f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
