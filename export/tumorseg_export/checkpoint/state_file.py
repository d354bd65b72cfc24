"""Weights as people save them: a state dict, plain, nested in a dictionary, or with a prefix on every key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from tumorseg_runtime.core.errors import InputError
from tumorseg_train.networks.models import check_held, is_state_dict, read_weights

PARTS = ("encoder.", "decoder.", "segmentation_head.")  # of every network of smp

Log = Callable[[str], None]
State = dict[str, torch.Tensor]


def read_network(file: Path, log: Log) -> State:
    """Tensors by the names that they have in smp's class, whatever they were wrapped in.

    Raises InputError for a damaged file, one with no or several state dicts, an encoder alone, and for
    weights that are not finite.
    """
    name, state = _state_in(file, read_weights(file))
    check_held(file, state)
    if name is not None:
        log(f"weights: entry '{name}' of {file.name}")
    begins = {key: _part_at(key) for key in state}
    prefixes = sorted({key[:at] for key, at in begins.items() if at is not None})
    parts = {key[at:].partition(".")[0] for key, at in begins.items() if at is not None}
    if not {"decoder", "segmentation_head"} <= parts:
        raise InputError(
            f"{file}: holds no decoder and segmentation head (keys such as {', '.join(_shown(state))}): it "
            "is an encoder only, or no network of smp; expected a whole one: an encoder's weights go into "
            "`tumorseg train --encoder-weights`"
        )
    strange = [key for key, at in begins.items() if at is None]
    if len(prefixes) > 1 or strange:
        raise InputError(
            f"{file}: holds more than one network: prefixes {', '.join(map(repr, prefixes))}, other keys "
            f"{', '.join(strange[:5]) or 'none'}; expected one: save that network's state_dict alone"
        )
    if prefixes[0]:
        log(f"prefix '{prefixes[0]}' of all keys is taken off")
    for key, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{file}: {key} is not finite, expected trained weights: take another epoch's")
    return {key.removeprefix(prefixes[0]): tensor for key, tensor in state.items()}


def _state_in(file: Path, content: Any) -> tuple[str | None, State]:
    """The one state dict that a file holds, and the name of its entry where it is nested."""
    if is_state_dict(content) and content:
        return None, dict(content)
    entries = content if isinstance(content, Mapping) else {}
    found = {str(name): value for name, value in entries.items() if is_state_dict(value) and value}
    if len(found) != 1:
        there = ", ".join(sorted(map(str, found or entries))) or type(content).__name__
        kind = "several state dicts" if found else "no state dict"
        raise InputError(
            f"{file}: holds {kind} ({there}), expected one: save model.state_dict() and give that file"
        )
    ((name, state),) = found.items()
    return name, dict(state)


def _shown(state: State) -> list[str]:
    return [key for key in state if not key.endswith("num_batches_tracked")][:3]


def _part_at(key: str) -> int | None:
    """Where the name of a network's part begins in a key: at the start, or after a dot."""
    found = [0] if key.startswith(PARTS) else []
    found += [at + 1 for part in PARTS if (at := key.find(f".{part}")) >= 0]
    return min(found, default=None)
