"""The network that a foreign state dict fits: architecture by its keys, channels by its first convolution."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tumorseg_export.checkpoint.state_file import State
from tumorseg_runtime.core.contract import SIZE_DIVISOR, Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.networks.models import ARCHITECTURES, build_model, load_exactly

HEAD = "segmentation_head.0.weight"  # (classes, features, kernel, kernel) in every known architecture
CHANNELS = (3, 1)
# Names that earlier versions of smp gave to the same layers: start of a key, then and now.
RENAMED = {
    "deeplabv3": {"decoder.0.": "decoder.aspp.", "decoder.1.": "decoder.conv.", "decoder.2.": "decoder.bn."}
}
DEEPER = "encoder.model."


def architecture_like(state: State) -> str | None:
    """The one architecture whose decoder, on an ordinary encoder, has just the keys of this one."""
    fitting = []
    for architecture in ARCHITECTURES:
        own = build_model(architecture, "resnet18", channels=3, classes=1).state_dict()
        if _decoder_keys(own) == _decoder_keys(with_present_names(state, architecture)):
            fitting.append(architecture)
    return fitting[0] if len(fitting) == 1 else None


def _decoder_keys(state: State) -> set[str]:
    counted = ("num_batches_tracked", "encoder.")
    return {key for key in state if not key.startswith(counted[1]) and not key.endswith(counted[0])}


def with_present_names(state: State, architecture: str) -> State:
    """Keys of earlier versions of smp under their present names; the layers are the same."""
    table = RENAMED.get(architecture, {})

    def present(key: str) -> str:
        for then, now in table.items():
            if key.startswith(then):
                return now + key.removeprefix(then)
        return key

    return {present(key): tensor for key, tensor in state.items()}


def fitting_network(
    file: Path, state: State, architecture: str, encoder: str, options: dict[str, Any]
) -> tuple[int, torch.nn.Module]:
    """Input channels as the first convolution has them, and the network with the file's weights.

    Which tensor is the first convolution's is seen by building the network for 3 channels and for 1.
    """
    classes = len(state[HEAD]) if HEAD in state else 1  # load_exactly names it where it is missing
    models = {
        channels: build_model(architecture, encoder, channels=channels, classes=classes, options=options)
        for channels in CHANNELS
    }
    shapes = {
        channels: {key: tensor.shape for key, tensor in model.state_dict().items()}
        for channels, model in models.items()
    }
    state = _under_model(state, shapes[3])
    differing = [key for key, shape in shapes[3].items() if shape != shapes[1].get(key)]
    first = next((key for key in differing if key in state), None)
    got = int(state[first].shape[1]) if first is not None and state[first].ndim > 1 else CHANNELS[0]
    if got not in CHANNELS:
        raise InputError(
            f"{file}: {first} takes {got} channels, expected 1 (gray) or 3 (RGB): such input is not supported"
        )
    model = models[got]
    load_exactly(model, state, f"the weights of {file} for {architecture} on {encoder}")
    return got, model.eval()


def check_runs(file: Path, model: torch.nn.Module, contract: Contract) -> None:
    """Run the network once: an option may be wrong and show only now."""
    size = (2 * SIZE_DIVISOR, 2 * SIZE_DIVISOR)
    expected = (1, len(contract.classes), *size)
    try:
        with torch.inference_mode():
            logits = model(torch.zeros(1, contract.channels, *size))
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:  # what torch's layers raise
        got = str(error).partition("\n")[0]
    else:
        got = str(tuple(logits.shape)) if isinstance(logits, torch.Tensor) else type(logits).__name__
        if got == str(expected):
            return
    raise InputError(
        f"{file}: one image of {size[0]}x{size[1]} pixels gave {got}, expected logits {expected}: correct "
        "the options of the network"
    )


def _under_model(state: State, own: Mapping[str, Any]) -> State:
    """Encoders that smp has since handed to timm: their layers now lie one level deeper, under `model`."""
    if not all(key.startswith(DEEPER) for key in own if key.startswith("encoder.")):
        return state
    if any(key.startswith(DEEPER) for key in state):
        return state
    return {
        DEEPER + key.removeprefix("encoder.") if key.startswith("encoder.") else key: tensor
        for key, tensor in state.items()
    }
