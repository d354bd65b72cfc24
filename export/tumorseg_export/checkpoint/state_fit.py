"""The network that a foreign state dict fits: options and channels by its keys and shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tumorseg_export.checkpoint.derived import (
    UNSEEN,
    architecture_like,
    defaults_of,
    derive,
    not_defaults,
    output_scale,
)
from tumorseg_export.checkpoint.smp_config import Log
from tumorseg_export.checkpoint.state_file import State
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.networks.models import build_model, load_exactly

# The last convolution, (classes, features, kernel, kernel): of all architectures, and of DPT.
HEADS = ("segmentation_head.0.weight", "segmentation_head.head.4.weight")
CHANNELS = (3, 1)
# Names that earlier versions of smp gave to the same layers: start of a key, then and now.
RENAMED = {
    "deeplabv3": {"decoder.0.": "decoder.aspp.", "decoder.1.": "decoder.conv.", "decoder.2.": "decoder.bn."}
}
DEEPER = "encoder.model."
COUNTER = "num_batches_tracked"  # absent in old files, and unused


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A network with a file's weights, for evaluation; `options` are those that are not its defaults."""

    model: torch.nn.Module
    channels: int
    classes: int
    options: dict[str, Any]


def fitting_network(
    file: Path, state: State, architecture: str, encoder: str, said: Mapping[str, Any], log: Log
) -> Fitted:
    """The network of smp's that has exactly the file's keys and shapes.

    said: options that are known; the others are derived, or keep smp's defaults, which is logged.
    Raises InputError where no network fits, and where several do.
    """
    if (like := architecture_like(state)) not in (None, architecture):
        raise InputError(
            f"{file}: its decoder is a {like}'s, expected a {architecture}'s: name the architecture and "
            "encoder that the weights belong to"
        )
    state = with_present_names(state, architecture)
    derived = derive(file, state, architecture, said)
    heads = [state[head].shape for head in HEADS if head in state]
    classes = heads[0][0] if heads and heads[0] and heads[0][0] else 1  # load_exactly names a wrong one

    def build(depth: int, channels: int) -> torch.nn.Module:
        options = {"encoder_depth": depth, **output_scale(architecture, depth), **derived.options, **said}
        changed = not_defaults(architecture, options)
        return build_model(architecture, encoder, channels=channels, classes=classes, options=changed)

    first = {number: build(derived.depths[0], number) for number in CHANNELS}
    channels = _channels_of(file, state, *first.values())
    models = {derived.depths[0]: first[channels]}
    for depth in derived.depths[1:]:
        try:
            models[depth] = build(depth, channels)
        except InputError:  # an encoder that has no such depth
            continue
    states = {depth: _as_encoder_names(state, model.state_dict()) for depth, model in models.items()}
    strange = {depth: _strange(states[depth], model) for depth, model in models.items()}
    depth = min(strange, key=lambda one: strange[one])
    if (several := [one for one in strange if strange[one] == 0])[1:]:
        raise InputError(
            f"{file}: fits {architecture} on {encoder} with encoder_depth {' and '.join(map(str, several))}, "
            "which compute different things: say it by --option encoder_depth=VALUE, or give a folder with "
            "config.json"
        )
    model = models[depth]
    load_exactly(model, states[depth], f"the weights of {file} for {architecture} on {encoder}")
    seen = not_defaults(
        architecture, {"encoder_depth": depth, **output_scale(architecture, depth), **derived.options}
    )
    if seen := {name: value for name, value in seen.items() if name not in said}:
        log(f"derived from keys and shapes: {_listed(seen)}")
    defaults = defaults_of(architecture)
    if unseen := {name: defaults[name] for name in UNSEEN.get(architecture, ()) if name not in said}:
        log(
            f"taken as built with smp's defaults for {architecture} where keys and shapes tell nothing: "
            f"{_listed(unseen)}; --option NAME=VALUE says otherwise"
        )
    return Fitted(model.eval(), channels, classes, not_defaults(architecture, {**seen, **said}))


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


def with_present_names(state: State, architecture: str) -> State:
    """Keys of earlier versions of smp under their present names; the layers are the same."""
    table = RENAMED.get(architecture, {})

    def present(key: str) -> str:
        for then, now in table.items():
            if key.startswith(then):
                return now + key.removeprefix(then)
        return key

    return {present(key): tensor for key, tensor in state.items()}


def _channels_of(file: Path, state: State, for_three: torch.nn.Module, for_one: torch.nn.Module) -> int:
    """Input channels as the first convolution has them: what differs between networks for 3 and for 1."""
    three, one = (
        {key: tensor.shape for key, tensor in model.state_dict().items()} for model in (for_three, for_one)
    )
    state = _as_encoder_names(state, three)
    differing = [key for key, shape in three.items() if shape != one.get(key)]
    first = next((key for key in differing if key in state), None)
    got = int(state[first].shape[1]) if first is not None and state[first].ndim > 1 else CHANNELS[0]
    if got not in CHANNELS:
        raise InputError(
            f"{file}: {first} takes {got} channels, expected 1 (gray) or 3 (RGB): such input is not supported"
        )
    return got


def _strange(state: State, model: torch.nn.Module) -> int:
    """How many tensors only one of both has, or has in another shape."""
    sides = [
        {(key, tensor.shape) for key, tensor in side.items() if not key.endswith(COUNTER)}
        for side in (state, model.state_dict())
    ]
    return len(sides[0] ^ sides[1])


def check_runs(file: Path, model: torch.nn.Module, contract: Contract) -> None:
    """Run the network once, at the size that it is exported for: some networks need a least size or have one
    alone, and an option may be wrong and show only now."""
    size = (contract.height, contract.width)
    expected = (1, len(contract.classes), *size)
    try:
        with torch.inference_mode():
            logits = model(torch.zeros(1, contract.channels, *size))
    except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, IndexError) as error:
        got = str(error).partition("\n")[0]  # what the layers of torch and timm raise
    else:
        got = str(tuple(logits.shape)) if isinstance(logits, torch.Tensor) else type(logits).__name__
        if got == str(expected):
            return
    raise InputError(
        f"{file}: one image of {size[0]}x{size[1]} pixels gave {got}, expected logits {expected}: correct "
        "the options of the network, or give the size of its training by --size"
    )


def _as_encoder_names(state: State, own: Mapping[str, Any]) -> State:
    """Encoders that smp has since handed to timm: their layers now lie one level deeper, under `model`."""
    if not all(key.startswith(DEEPER) for key in own if key.startswith("encoder.")):
        return state
    if any(key.startswith(DEEPER) for key in state):
        return state

    def present(key: str) -> str:
        if not key.startswith("encoder."):
            return key
        key = DEEPER + key.removeprefix("encoder.")
        flat = key.replace(".stages.", ".stages_", 1)  # timm flattens gernet's
        return flat if flat in own else key

    return {present(key): tensor for key, tensor in state.items()}
