"""The arithmetic of a training: what the machine does well, and one repair for processors."""

from __future__ import annotations

import dataclasses
import types

import torch

from tumorseg_runtime.errors import InputError
from tumorseg_train.recipe import Recipe


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


def keep_depthwise_in_float32(model: torch.nn.Module) -> None:
    """Take the depthwise convolutions out of autocast, in place; weights and names stay as they are.

    On a CPU their gradient takes two to ten times as long in bfloat16 as in float32 (torch 2.14), a third of
    a step of efficientnet-lite0.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d) and module.groups == module.in_channels > 1:
            # On the instance, so that the class stays; a deep copy binds it to the copy.
            module.__dict__["forward"] = types.MethodType(_in_float32, module)


def _in_float32(module: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    with torch.autocast(images.device.type, enabled=False):
        result: torch.Tensor = type(module).forward(module, images.float())
        return result
