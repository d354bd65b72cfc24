"""BatchNorm folded into the convolution before it, in FP32.

Needed before a network is halved: a running variance beyond 65,504 becomes infinite in FP16, the output
is then finite and constant, and nothing complains. Which convolution feeds which BatchNorm is seen by
running the network, so that it holds for any architecture.
"""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tumorseg_runtime.core.contract import SIZE_DIVISOR

TRACE_SIZE = 2 * SIZE_DIVISOR  # pixels: the structure does not depend on it, the time does


def fuse(model: torch.nn.Module, channels: int) -> torch.nn.Module:
    """A copy of a network in evaluation mode in which every BatchNorm that can be folded is folded.

    A BatchNorm stays where its input is not always the output of one convolution that feeds nothing else;
    both may run several times, as in a mirrored network. The caller proves that the copy decides as the
    original.
    """
    fused = copy.deepcopy(model)
    names = {module: name for name, module in fused.named_modules()}
    for norm, conv in _feeders(fused, channels):
        # fuse_conv_bn_eval copies the convolution; a subclass of BatchNorm goes on with what it adds.
        _replace(fused, names[conv], fuse_conv_bn_eval(conv, norm))
        _replace(fused, names[norm], _what_follows(norm))
    return fused


def _feeders(model: torch.nn.Module, channels: int) -> list[tuple[torch.nn.BatchNorm2d, torch.nn.Conv2d]]:
    """Pairs (BatchNorm, the convolution whose output it takes), each time that either runs."""
    outputs: list[tuple[torch.Tensor, torch.nn.Conv2d]] = []
    inputs: list[tuple[torch.Tensor, torch.nn.BatchNorm2d]] = []
    handles = []
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            handles.append(module.register_forward_hook(lambda m, _, out: outputs.append((out, m))))
        elif isinstance(module, torch.nn.BatchNorm2d):
            handles.append(module.register_forward_pre_hook(lambda m, args: inputs.append((args[0], m))))
    try:
        with torch.inference_mode():
            model(torch.zeros(1, channels, TRACE_SIZE, TRACE_SIZE))
    finally:
        for handle in handles:
            handle.remove()
    pairs = [(norm, conv) for taken, norm in inputs for given, conv in outputs if taken is given]
    runs = Counter(module for _, module in (*outputs, *inputs))
    return [
        (norm, conv) for (norm, conv), times in Counter(pairs).items() if times == runs[norm] == runs[conv]
    ]


def _what_follows(norm: torch.nn.BatchNorm2d) -> torch.nn.Module:
    """What a BatchNorm does beside its scale and shift: timm's own variant also drops and activates."""
    if type(norm) is torch.nn.BatchNorm2d:
        return torch.nn.Identity()
    return torch.nn.Sequential(*(child for child in norm.children()))


def _replace(model: torch.nn.Module, name: str, new: torch.nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new)
