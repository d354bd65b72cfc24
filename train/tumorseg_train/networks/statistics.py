"""BatchNorm statistics of a network whose weights came from a bundle, where export folded them away."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

Norm = torch.nn.modules.batchnorm._BatchNorm


def is_folded(model: torch.nn.Module) -> bool:
    """Whether each BatchNorm does nothing but add: mean 0 and factor 1, as `unfold` leaves them."""
    norms: list[Any] = [module for module in model.modules() if isinstance(module, Norm)]
    still = all(bool((norm.weight == 1).all()) and not norm.running_mean.any() for norm in norms)
    return still and any(norm.bias.any() for norm in norms)  # a fresh network has no bias yet


def estimate_statistics(model: torch.nn.Module, images: Iterable[torch.Tensor]) -> None:
    """Give each BatchNorm the mean and variance of what reaches it; the answers stay as they are.

    images: float (C, h, w) each, as the network is trained on.
    """
    sums: dict[Any, list[torch.Tensor]] = {}

    def count(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        values = inputs[0].double().transpose(0, 1).flatten(1)
        new = torch.stack([torch.full((len(values),), values.shape[1]), values.sum(1), (values**2).sum(1)])
        sums.setdefault(module, []).append(new)

    norms = [module for module in model.modules() if isinstance(module, Norm)]
    hooks = [norm.register_forward_pre_hook(count) for norm in norms]
    was = model.training
    try:
        with torch.no_grad():
            model.eval()
            for image in images:
                model(image[None])
    finally:
        model.train(was)
        for hook in hooks:
            hook.remove()
    with torch.no_grad():
        for norm, parts in sums.items():
            number, first, second = torch.stack(parts).sum(0)
            mean = first / number
            variance = (second / number - mean**2).clamp(min=0)
            # What it does now: x -> (x - m) / sqrt(v + ε) * w + b. The same line through other numbers:
            slope = norm.weight / torch.sqrt(norm.running_var.double() + norm.eps)
            shift = norm.bias - norm.running_mean * slope
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_(slope * torch.sqrt(variance + norm.eps))
            norm.bias.copy_(shift + mean * slope)
