"""Target `onnx-fp16`: the whole network in FP16 behind FP32 input and output.

Conv and BatchNorm are folded in FP32 first (`tumorseg_export.fuse`), and nothing is halved that FP16
cannot hold: a weight or an activation beyond 65,504 would become infinite, and an infinity may vanish in
the next layer and leave finite garbage.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch

from tumorseg_export.fuse import fuse
from tumorseg_export.onnx_export import to_onnx, tool_versions, write_onnx
from tumorseg_export.source import Made, Source
from tumorseg_runtime.bundle import Artefact
from tumorseg_runtime.errors import CheckFailedError
from tumorseg_runtime.parity import BUDGETS, compare_image, logit_scale

FILE = "model.fp16.onnx"
LARGEST = torch.finfo(torch.float16).max  # 65,504


@dataclasses.dataclass(frozen=True)
class Extreme:
    """The largest magnitude that was seen, and where: layer by name, image by golden name or 'weights'."""

    layer: str
    image: str
    value: float


class Half(torch.nn.Module):
    """float32 (N, C, H, W) -> the network in FP16 -> float32 logits (N, K, H, W)."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network.half()
        self.eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(image.half()).float()
        return logits


def make(source: Source, folder: Path) -> Made:
    """Write `model.fp16.onnx`; raises CheckFailedError where FP16 cannot hold the network."""
    fused = fuse(source.model, source.contract.channels)
    weight = check_weights(fused)
    activation = check_activations(fused, source)
    write_onnx(to_onnx(Half(fused), source.contract), folder / FILE, source, precision="fp16")
    facts: dict[str, Any] = {
        "fp16": {
            "limit": LARGEST,
            "largest_weight": dataclasses.asdict(weight),
            "largest_activation": dataclasses.asdict(activation),
        }
    }
    return Made(Artefact(FILE, "onnx", "fp16", None, tool_versions(), ()), facts)


def check_weights(model: torch.nn.Module) -> Extreme:
    """The largest weight or buffer of the network; raises CheckFailedError where one is beyond FP16."""
    worst = Extreme("", "weights", 0.0)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point():
            worst = _larger(worst, tensor, name, "weights")
    return worst


def check_activations(model: torch.nn.Module, source: Source) -> Extreme:
    """Run the golden images through the folded network in FP32 and return its largest activation.

    Raises CheckFailedError where what goes into or comes out of a layer is beyond FP16, and where the
    folded network does not give the logits of the original one.
    """
    worst = Extreme("", "", 0.0)
    image = ""

    def watch(name: str) -> Any:
        def hook(_: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            nonlocal worst
            for tensor in (*inputs, output):
                if isinstance(tensor, torch.Tensor):
                    worst = _larger(worst, tensor, name, image)

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not any(module.children())]
    handles = [module.register_forward_hook(watch(name)) for name, module in leaves]
    scale = logit_scale([item.logits for item in source.golden])
    try:
        for item in source.golden:
            image = item.name
            with torch.inference_mode():
                logits = model(torch.from_numpy(item.tensor)[None])[0].numpy()  # (K, H, W)
            result = compare_image(
                item.name, item.logits, logits, scale=scale, budget=BUDGETS["fp32"],
                logit_threshold=source.contract.logit_threshold,
            )  # fmt: skip
            if result.breaches:
                raise CheckFailedError(
                    f"{FILE}: folding BatchNorm changed the network on {item.name} "
                    f"({'; '.join(result.breaches)}): leave out the target onnx-fp16"
                )
    finally:
        for handle in handles:
            handle.remove()
    return worst


def _larger(worst: Extreme, tensor: torch.Tensor, layer: str, image: str) -> Extreme:
    """The larger of `worst` and the tensor's extreme; raises CheckFailedError where that is beyond FP16."""
    if not tensor.numel():
        return worst
    low, high = tensor.detach().aminmax()
    value = max(-float(low), float(high))
    if not math.isfinite(value) or value > LARGEST:
        raise CheckFailedError(
            f"{FILE}: layer {layer} reaches {value:.4g} ({image}), FP16 ends at {LARGEST:g}: "
            "leave out the target onnx-fp16"
        )
    return Extreme(layer, image, value) if value > worst.value else worst
