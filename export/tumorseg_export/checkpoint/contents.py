"""What a file of weights holds, flat: every tensor and every plain value under one dotted key.

A dictionary in a dictionary, a list, and a module inside a module then look alike, and the key alone says
where a tensor stands: `state_dict.model.encoder.conv1.weight`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

MAX_DEPTH = 12  # containers in containers; a pickle can hold one that contains itself
Plain = str | int | float | bool | tuple[float, ...] | None


@dataclasses.dataclass(frozen=True)
class Contents:
    """tensors: by dotted key. containers: of each such key the part that names dictionaries and lists, with
    its last dot; the rest is the key of a state dict. values: text, numbers, short lists of numbers."""

    tensors: dict[str, torch.Tensor]
    containers: dict[str, str]
    values: dict[str, Plain]


def flatten(content: Any) -> Contents:
    """Everything in nested dictionaries and lists; what is neither tensor nor plain is left out."""
    found = Contents({}, {}, {})
    for container, key, value in _leaves(content, "", 0):
        if isinstance(value, torch.Tensor):
            found.tensors[container + key] = value.detach()
            found.containers[container + key] = container
        else:
            found.values[container + key] = value
    return found


def _leaves(content: Any, container: str, depth: int) -> Iterator[tuple[str, str, Any]]:
    if depth > MAX_DEPTH:
        return
    items = content.items() if isinstance(content, Mapping) else enumerate(content)
    for name, value in items:
        key = str(name)
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            yield container, key, torch.from_numpy(value.copy())
        elif isinstance(value, (torch.Tensor, str, bool, int, float)) or value is None:
            yield container, key, value
        elif isinstance(value, np.generic):
            yield container, key, value.item()
        elif isinstance(value, (list, tuple)) and 0 < len(value) <= 8 and all(map(_is_number, value)):
            yield container, key, tuple(float(one) for one in value)
        elif isinstance(value, (Mapping, list, tuple)):
            yield from _leaves(value, f"{container}{key}.", depth + 1)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
