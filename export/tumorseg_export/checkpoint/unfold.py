"""Weights of a bundle as a network that can be trained on (`tumorseg unfold`).

Export folds each BatchNorm into the convolution before it. Here the convolution keeps the folded weights, and
the BatchNorm becomes one that changes nothing: mean 0, variance 1 - ε, factor 1. In evaluation the network is
then the artefact's, in the artefact's precision. `tumorseg train --init` finds such weights, and gives each
BatchNorm the statistics of the training images before the first step (`tumorseg_train.networks.statistics`).

In FP32, and in FP16 files of before, a mirrored network's BatchNorm is as it was: it is read back whole.
Its numbers are found by the layers that use them, since equal tensors are in the file once, under one name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.networks.models import build_model

Norm = torch.nn.modules.batchnorm._BatchNorm


def unfold(root: Path) -> dict[str, torch.Tensor]:
    """The state dict of a bundle's network, whose answers are those of its ONNX artefact (FP32 before FP16).

    Layers that no image reaches are not in the artefact and keep random weights.
    Raises InputError where the bundle has no ONNX artefact, or the artefact another network's weights;
    BundleError for a damaged bundle.
    """
    bundle = Bundle.open(root)
    there = {each.precision: each.file for each in bundle.artefacts if each.format == "onnx"}
    file = there.get("fp32") or there.get("fp16")
    if file is None:
        raise InputError(
            f"{root}: has no artefact onnx fp32 or fp16, expected one: no other holds plain weights"
        )
    names = {"architecture", "encoder"} - set(bundle.model)
    if names:
        raise InputError(f"{root}: does not say {' and '.join(sorted(names))}, expected both: train anew")
    contract = bundle.contract
    model = build_model(
        bundle.model["architecture"], bundle.model["encoder"],
        channels=contract.channels, classes=len(contract.classes),
    )  # fmt: skip
    graph = onnx.load_model_from_string(bundle.read(file)).graph
    weights = {
        _name(tensor): torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
        for tensor in graph.initializer
    }
    norms = _norms(graph)
    followed, reached = trace(model, torch.zeros(1, contract.channels, contract.height, contract.width))
    state = model.state_dict()
    for key in state:
        owner, _, kind = key.rpartition(".")
        if owner not in reached or kind == "num_batches_tracked":
            continue
        stored = norms.get(followed.get(owner, ""), {})
        if owner in followed and kind != "bias" and not stored:
            norm: Any = model.get_submodule(owner)
            state[key] = torch.full_like(
                state[key], {"running_mean": 0, "running_var": 1 - norm.eps, "weight": 1}[kind]
            )
            continue
        name = followed.get(owner, owner)
        folded = weights.get(f"{name}.{kind}", weights.get(f"{name}.weight_{kind}"))  # what folding calls it
        source = weights.get(stored[kind]) if stored else folded
        if source is None or source.shape != state[key].shape:
            got = "missing" if source is None else f"of shape {tuple(source.shape)}"
            raise InputError(
                f"{root}: weight {key} of {file} is {got}, expected {tuple(state[key].shape)}: its "
                "weights cannot be read back; keep the run"
            )
        state[key] = source.to(state[key].dtype)
    return state


def _name(tensor: onnx.TensorProto | str) -> str:
    """The layer's name for a tensor of the file; of a mirrored network, the inner network's."""
    name = tensor if isinstance(tensor, str) else tensor.name
    return name.removesuffix("_fp16").removeprefix("network.")


def _norms(graph: onnx.GraphProto) -> dict[str, dict[str, str]]:
    """By convolution: the names of the tensors of the BatchNorm that follows it in the file."""
    users = {name: node for node in graph.node for name in node.input}
    found = {}
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose"):
            continue
        after = users.get(node.output[0])
        while after is not None and after.op_type == "Cast":
            after = users.get(after.output[0])
        if after is not None and after.op_type == "BatchNormalization":
            kinds = ("weight", "bias", "running_mean", "running_var")
            names = dict(zip(kinds, map(_name, after.input[1:5]), strict=True))
            found[_name(node.input[1]).removesuffix(".weight")] = names
    return found


def trace(model: torch.nn.Module, example: torch.Tensor) -> tuple[dict[str, str], set[str]]:
    """Names of each BatchNorm with the convolution it follows, and of all modules that an image reaches.

    example: float (N, C, h, w); its values play no role. Raises InputError for a BatchNorm that follows none.
    """
    made: list[tuple[torch.Tensor, str]] = []
    followed: dict[str, str] = {}
    reached: set[str] = set()

    def watch(name: str) -> Any:
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            reached.add(name)
            if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                made.append((output, name))
            elif isinstance(module, Norm):
                before = [convolution for output, convolution in made if output is inputs[0]]
                if not before:
                    raise InputError(f"BatchNorm {name} follows no convolution: no weights can be read back")
                followed[name] = before[-1]

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    try:
        with torch.no_grad():
            model.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
    return followed, reached
