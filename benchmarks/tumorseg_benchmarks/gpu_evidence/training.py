"""Stage `train`: training on the GPU: gradients against the CPU's, a loss that falls in every precision, and
`tumorseg train` where its packages are installed."""

from __future__ import annotations

import copy
import importlib.util

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from tumorseg_benchmarks.gpu_evidence.network import SmallNetwork
from tumorseg_benchmarks.gpu_evidence.pytorch import cuda_or_dry
from tumorseg_benchmarks.gpu_evidence.stage import Findings, Options
from tumorseg_train.data.phantoms import draw_brain, write_phantoms

SIZE, BATCH, STEPS = 64, 8, 60
GRADIENT_LIMIT = 1e-3  # of the largest gradient of a parameter
FALL = 0.6  # of the first loss, that the last one must lie below
PACKAGES = ("segmentation_models_pytorch", "pytorch_lightning", "albumentations", "pydantic", "safetensors")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def run(options: Options, found: Findings) -> None:
    """From one step to the command."""
    device = cuda_or_dry(options, found)
    images, masks = phantoms()
    gradients(images, masks, device, found)
    for name, dtype in PRECISIONS.items() if device.type == "cuda" else [("fp32", torch.float32)]:
        if dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported():
            found.lacks("training in bf16: this GPU has none")
            continue
        first, last = learn(images, masks, device, dtype)
        found.check(
            f"the loss falls in {name}", last < FALL * first, f"{first:.3f} to {last:.3f} in {STEPS} steps"
        )
    if missing := [one for one in PACKAGES if importlib.util.find_spec(one) is None]:
        found.lacks(f"tumorseg train: not installed: {', '.join(missing)} (extra train)")
    elif options.dry:
        found.lacks("tumorseg train on a GPU: the tests run it on the CPU")
    else:
        found.attempt("tumorseg train on CUDA", lambda: command(options, device))


def phantoms() -> tuple[torch.Tensor, torch.Tensor]:
    """float32 images (N, 3, H, W) of about zero mean, and masks (N, 1, H, W) of 0 and 1."""
    drawn = [draw_brain(np.random.default_rng(index), (SIZE, SIZE), 1) for index in range(BATCH)]
    images = np.stack([image for image, _ in drawn]).astype(np.float32)[:, None] / 128 - 1
    masks = np.stack([mask for _, mask in drawn]).astype(np.float32)[:, None]
    return torch.from_numpy(images).repeat(1, 3, 1, 1), torch.from_numpy(masks)


def gradients(images: torch.Tensor, masks: torch.Tensor, device: torch.device, found: Findings) -> None:
    """One backward pass, FP32 without TF32."""
    torch.manual_seed(0)
    model = SmallNetwork()
    sides = []
    for place in (torch.device("cpu"), device):
        there = copy.deepcopy(model).to(place).train()
        torch.autograd.backward(binary_cross_entropy_with_logits(there(images.to(place)), masks.to(place)))
        sides.append([one.grad.cpu() for one in there.parameters() if one.grad is not None])
    worst = max(
        float((ours - theirs).abs().max() / theirs.abs().max()) for theirs, ours in zip(*sides, strict=True)
    )
    found.check("gradients as on the CPU", worst <= GRADIENT_LIMIT, f"{worst:.2g} of the largest at most")


def learn(
    images: torch.Tensor, masks: torch.Tensor, device: torch.device, dtype: torch.dtype
) -> tuple[float, float]:
    """(first, last) loss of a few steps on one batch."""
    torch.manual_seed(0)
    model = SmallNetwork().to(device).train()
    images, masks = images.to(device), masks.to(device)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    losses = []
    for _ in range(STEPS):
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = model(images)
        loss = binary_cross_entropy_with_logits(logits.float(), masks)
        optimiser.zero_grad()
        torch.autograd.backward(scaler.scale(loss))
        scaler.step(optimiser)
        scaler.update()
        losses.append(float(loss.detach()))
    return losses[0], losses[-1]


def command(options: Options, device: torch.device) -> str:
    """Two epochs of a small U-Net on phantoms; raises where the run did not use the GPU."""
    from tumorseg_runtime.core.errors import BackendError
    from tumorseg_train.commands.train import train
    from tumorseg_train.networks.run import Run

    data, out = options.folder / "data", options.folder / "run"
    write_phantoms(data, brain=24, breast=0)
    torch.cuda.reset_peak_memory_stats(device)
    sizes = ["--arch", "unet", "--encoder", "resnet18", "--size", "64", "--epochs", "2", "--batch-size", "4"]
    arguments = [
        str(data),
        "--out",
        str(out),
        *sizes,
        "--encoder-weights",
        "none",
        "--recipe",
        "quick",
        "--quiet",
    ]
    train.main(arguments, standalone_mode=False)
    peak = torch.cuda.max_memory_allocated(device)
    if not peak:
        raise BackendError("no memory of the GPU was taken, expected the training there: check torch's CUDA")
    return f"{Run.open(out).root.name} written, {peak / 2**20:.0f} MiB of GPU memory at most"
