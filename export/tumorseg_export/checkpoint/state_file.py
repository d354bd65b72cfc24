"""The network in a file of weights: found by its keys, whatever it was wrapped in, and what lies beside it.

Every tensor is one of: the chosen network's; another network's; a known companion (`KINDS`); the
classification head, a second output that is not exported; or unknown. What is used and what is left is said.
An unknown tensor in the network's own state dict is refused, since it may change what the network computes.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tumorseg_export.checkpoint.contents import Contents, Plain, flatten
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.networks.weights_file import read_weights

PARTS = ("encoder", "decoder", "segmentation_head")  # of every network of smp
SECOND = "classification_head"
# Segments that DataParallel, torch.compile, FSDP, checkpointing and Opacus put into keys, wherever they wrap.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_module")
TRAINING = r"optim\w*|\w*(optimi[sz]er|scheduler|scaler|rng|random_state)\w*|callbacks|loops|amp"
OF_IMAGES = (
    r"((pixel|image|img|input|norm|normali[sz]e|normali[sz]ation|dataset|data|rgb|channel|imagenet)_)?"
)
# What lies beside a network and is known; the first that fits the key's segments. Normalisation is used.
NORMALISATION = "normalisation"
KINDS: tuple[tuple[str, str], ...] = (
    ("training state", TRAINING),
    ("metrics", r"\w*metrics?|confmat|history|\w*scores?|results|\w*(?:dice|iou|f1|acc|accuracy|auroc)"),
    ("loss", r"\w*criterion\w*|\w*loss\w*|pos_weight|class_weights?"),
    ("counters", r"n_averaged|num_updates|\w*step|\w*epoch|initted|num_batches_tracked"),
    (NORMALISATION, OF_IMAGES + "(mean|std)s?"),
)

Log = Callable[[str], None]
State = dict[str, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Stored:
    """A network as it lies in a file. state: tensors by the names that they have in smp's class.

    beside: mean and std that lie beside it, by dotted key. values: plain values of the file, by dotted key.
    """

    state: State
    beside: dict[str, tuple[float, ...]]
    values: dict[str, Plain]


def read_network(file: Path, log: Log, entry: str | None = None) -> Stored:
    """The one network that a file holds, or of several the one that `entry` names.

    Raises InputError for a file of another kind, a damaged one, one with no or several networks, an encoder
    alone, unknown tensors among the network's, and for weights that are not finite.
    """
    content = read_weights(file)
    found = flatten(content if not isinstance(content, torch.Tensor) else {"tensor": content})
    networks = _networks_in(found)
    if not networks:
        raise InputError(f"{file}: {_no_network(found)}")
    prefix = _chosen(file, networks, entry)
    container = found.containers[networks[prefix][0]] if networks[prefix] else ""
    container = container if prefix.startswith(container) else ""
    state = _state_of(file, found, prefix, networks[prefix])
    _say_where(file, container, prefix, networks[prefix], log)
    beside = _left(file, found, networks, prefix, container if entry is None else None, log)
    for key, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(
                f"{file}: {shown(key)} is not finite, expected trained weights: take another epoch's"
            )
    return Stored(state, beside, found.values)


def shown(text: str) -> str:
    """A key of a stranger's file, fit for a terminal."""
    return text if text.isprintable() else ascii(text)[1:-1]


def part_at(key: str) -> int | None:
    """Where the name of a network's part begins in a dotted key: at the start, or after a dot."""
    at = 0
    for segment in key.split("."):
        if segment in (*PARTS, SECOND):
            return at if at + len(segment) < len(key) else None
        at += len(segment) + 1
    return None


def _networks_in(found: Contents) -> dict[str, list[str]]:
    """Keys of each network by what stands before the names of its parts; whole networks alone."""
    keys: dict[str, list[str]] = {}
    for key in found.tensors:
        at = part_at(key)
        if at is not None and _kind(key[:at]) not in ("training state", "metrics"):
            keys.setdefault(key[:at], []).append(key)
    return {
        prefix: own
        for prefix, own in keys.items()
        if {"decoder", "segmentation_head"} <= {key[len(prefix) :].partition(".")[0] for key in own}
    }


def _no_network(found: Contents) -> str:
    keys = [shown(key) for key in found.tensors if _kind(key) is None or part_at(key) is not None]
    if not keys:
        there = sorted({shown(key.partition(".")[0]) for key in (*found.tensors, *found.values)})
        return (
            f"holds no state dict ({', '.join(there[:5]) or 'nothing'}), expected one: "
            "save model.state_dict() and give that file"
        )
    named = [key for key in keys if not key.endswith("num_batches_tracked")][:3]
    return (
        f"holds no decoder and segmentation head (keys such as {', '.join(named)}): it is an encoder only, "
        "or no network of smp; expected a whole one: an encoder's weights go into `tumorseg train "
        "--encoder-weights`"
    )


def _name(prefix: str) -> str:
    """What --entry calls a network: what stands before its keys, a dot for nothing."""
    return shown(prefix[:-1]) or "."


def _chosen(file: Path, networks: dict[str, list[str]], entry: str | None) -> str:
    names = {_name(prefix): prefix for prefix in networks}
    listed = ", ".join(f"{name} ({len(networks[prefix])} tensors)" for name, prefix in names.items())
    if entry is None:
        if len(names) > 1:
            raise InputError(f"{file}: holds {len(names)} networks: {listed}; choose one with --entry NAME")
        return next(iter(networks))
    if entry in names:
        return names[entry]
    under = [name for name in names if name.startswith(f"{entry}.")]
    if len(under) != 1:
        raise InputError(
            f"{file}: --entry is '{entry}', which names {len(under)} networks; there are: {listed}"
        )
    return names[under[0]]


def _state_of(file: Path, found: Contents, prefix: str, keys: list[str]) -> State:
    """The network's tensors without what wraps them; its classification head is left out."""
    state = {
        _bare(key[len(prefix) :]): found.tensors[key]
        for key in keys
        if not key.startswith(f"{prefix}{SECOND}.")
    }
    both = Counter(_bare(key[len(prefix) :]) for key in keys)
    if twice := [shown(key) for key, count in both.items() if count > 1]:
        raise InputError(
            f"{file}: has {len(twice)} tensors twice, with and without a wrapper ({', '.join(twice[:3])}): "
            "save one network's model.state_dict() alone"
        )
    return state


def _bare(key: str) -> str:
    return ".".join(segment for segment in key.split(".") if segment not in WRAPPERS)


def _say_where(file: Path, container: str, prefix: str, keys: list[str], log: Log) -> None:
    if container:
        log(f"weights: entry '{shown(container[:-1])}' of {shown(file.name)}")
    if prefix != container:
        log(f"prefix '{shown(prefix.removeprefix(container))}' of all keys is taken off")
    inside = {segment for key in keys for segment in key[len(prefix) :].split(".") if segment in WRAPPERS}
    if inside:
        log(f"wrappers inside keys are taken off: {', '.join(sorted(inside))}")


def _left(
    file: Path, found: Contents, networks: dict[str, list[str]], prefix: str, strict: str | None, log: Log
) -> dict[str, tuple[float, ...]]:
    """Say what lies beside the network, and give mean and std among it.

    strict: the container whose unknown tensors are refused, None for none.
    """
    owner = {key: other for other, keys in networks.items() for key in keys}
    beside: dict[str, tuple[float, ...]] = {}
    groups: dict[str, list[str]] = {}
    for key, tensor in found.tensors.items():
        if owner.get(key) == prefix:
            kind = "classification head, a second output" if key.startswith(f"{prefix}{SECOND}.") else None
        elif key in owner:
            kind = f"network {_name(owner[key])}"
        else:
            kind = _kind(key) or "unknown"
        if kind == NORMALISATION and tensor.numel() in (1, 3):
            # The shortest decimals of a float32 are what somebody typed: 0.485 and not 0.48500001430511475.
            beside[key] = tuple(float(str(one)) for one in tensor.flatten().to(torch.float32).numpy())
        elif kind is not None:
            groups.setdefault(kind, []).append(key)
    for key, value in found.values.items():
        if _kind(key) == NORMALISATION and (numbers := _numbers(value)):
            beside[key] = numbers
    own = [key for key in groups.get("unknown", []) if found.containers[key] == strict]
    if own:
        raise InputError(
            f"{file}: has {_some(own)} beside the network, which may change what it computes; expected a "
            f"network alone: save its model.state_dict(), or leave them out with --entry {_name(prefix)}"
        )
    used = sum(not key.startswith(f"{prefix}{SECOND}.") for key in networks[prefix])
    log(f"used: {used} tensors of the network" + (f"; {', '.join(map(shown, beside))}" if beside else ""))
    if groups:
        log("left: " + "; ".join(f"{_some(keys)} ({kind})" for kind, keys in groups.items()))
    return beside


def _numbers(value: Any) -> tuple[float, ...] | None:
    if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)):
        return (float(value),)
    return value if isinstance(value, tuple) and len(value) in (1, 3) else None


def _kind(key: str) -> str | None:
    """The kind of what is no network's, by the segments of its key; None for an unknown one."""
    segments = key.lower().rstrip(".").split(".")
    for kind, pattern in KINDS:
        # A mean is one by its own name; of the others all that lies below is of the kind, too.
        looked = segments[-1:] if kind == NORMALISATION else segments
        if any(re.fullmatch(pattern, segment) for segment in looked):
            return kind
    return None


def _some(keys: list[str], limit: int = 3) -> str:
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(map(shown, keys[:limit])) + more
