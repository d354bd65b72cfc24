"""The arithmetic of a training: what the machine does well, and a repair for processors."""

from __future__ import annotations

import dataclasses
import types

import torch

from tumorseg_runtime.core.errors import InputError
from tumorseg_train.config.recipe import Recipe


def resolve_precision(recipe: Recipe) -> Recipe:
    """The recipe with 'auto' replaced: 16-mixed on CUDA, bf16-mixed on a CPU that has it, else 32-true.

    Raises InputError for 16-mixed without a CUDA device.
    """
    cuda = torch.cuda.is_available()
    if recipe.precision == "16-mixed" and not cuda:
        raise InputError("precision is 16-mixed, expected auto or 32-true without a CUDA device")
    if recipe.precision != "auto":
        return recipe
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return dataclasses.replace(
        recipe, precision="16-mixed" if cuda else "bf16-mixed" if native else "32-true"
    )


def speed_up_depthwise(model: torch.nn.Module) -> None:
    """Give depthwise convolutions a forward that suits a CPU, in place; weights and names stay as they are.

    They leave autocast: on a CPU their gradient takes longer in bfloat16 than in float32 (torch 2.14).
    Dilated ones run as undilated ones, equal up to rounding; `benchmarks/step_speed.py` tells what that saves
    in a step of DeepLabV3.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d) and module.groups == module.in_channels > 1:
            # On the instance, so that the class stays; a deep copy binds it to the copy.
            module.__dict__["forward"] = types.MethodType(_depthwise, module)


def _depthwise(module: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    with torch.autocast(images.device.type, enabled=False):
        images = images.float()
        if _splits(module, images):
            return _split(module, images)
        result: torch.Tensor = type(module).forward(module, images)
        return result


def _splits(module: torch.nn.Conv2d, images: torch.Tensor) -> bool:
    """Whether the convolution is a dilated one that keeps the size, of whole grids of pixels."""
    step, side = module.dilation[0], module.kernel_size[0]
    return (
        type(module).forward is torch.nn.Conv2d.forward
        and step > 1
        and side % 2 == 1
        and module.dilation == (step, step)
        and module.kernel_size == (side, side)
        and module.stride == (1, 1)
        and module.padding == (step * (side // 2),) * 2
        and module.padding_mode == "zeros"
        and images.shape[2] % step == images.shape[3] % step == 0
    )


def _split(module: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    """Convolve each grid of every d-th pixel, which dilation d never mixes, as an image of its own."""
    step, side = module.dilation[0], module.kernel_size[0]
    n, c, height, width = images.shape
    h, w = height // step, width // step
    grids = images.permute(0, 2, 3, 1).reshape(n, h, step, w, step, c)
    grids = grids.permute(0, 2, 4, 1, 3, 5).reshape(n * step * step, h, w, c)
    # On an image smaller than the kernel torch takes a path that is twice as slow.
    grids = torch.nn.functional.pad(grids, (0, 0, 0, max(0, side - w), 0, max(0, side - h)))
    result = torch.nn.functional.conv2d(
        grids.permute(0, 3, 1, 2), module.weight, module.bias, padding=side // 2, groups=c
    )[:, :, :h, :w]
    k = result.shape[1]
    result = result.permute(0, 2, 3, 1).reshape(n, step, step, h, w, k)
    return result.permute(0, 3, 1, 4, 2, 5).reshape(n, height, width, k).permute(0, 3, 1, 2)
