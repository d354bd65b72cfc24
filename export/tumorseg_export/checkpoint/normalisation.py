"""Mean and std of the input: what lies beside the weights is used, or the file is refused.

Sources, which must agree where several speak: the flags, `albumentations_config_*.json` of a folder, buffers
and values named mean and std in the file of weights. Where none does, the encoder's own training, which is
said.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tumorseg_export.checkpoint.state_file import shown
from tumorseg_export.checkpoint.transform_config import EVALUATION, Transform
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.networks.models import encoder_normalisation

Numbers = tuple[float, ...]
LARGEST = 2.0  # a mean or std of intensities in 0..1 lies below it; beyond, it is of 0..255
REMEDY = "give --mean and --std of its training, for intensities scaled to 0..1"


@dataclasses.dataclass(frozen=True)
class Fact:
    """A mean and a std, and what says so, in words; one of them None where only the other is there."""

    source: str
    mean: Numbers | None
    std: Numbers | None


def choose_normalisation(
    file: Path,
    flags: tuple[Numbers | None, Numbers | None],
    beside: Mapping[str, Numbers],
    transforms: Sequence[Transform],
    encoder: str,
    channels: int,
    log: Callable[[str], None],
) -> tuple[Numbers, Numbers]:
    """Mean and std, one number per channel, for intensities in 0..1.

    beside: what `state_file.read_network` found. Raises InputError where sources contradict one another,
    where one is half, and where nothing is known.
    """
    mean, std = flags
    if (mean is None) != (std is None):
        raise InputError("got one of --mean and --std, expected both or none: give the other, too")
    facts = [_per_channel(file, fact, channels) for fact in (*_of_transforms(transforms), *_beside(beside))]
    whole = [fact for fact in facts if fact.mean is not None and fact.std is not None]
    if mean is not None and std is not None:
        for flag, values in (("--mean", mean), ("--std", std)):
            if len(values) != channels:
                raise InputError(
                    f"{file}: takes {channels} channel(s), {flag} has {len(values)} number(s): give one each"
                )
        whole.insert(0, Fact("--mean and --std", mean, std))
    elif half := [fact for fact in facts if fact not in whole]:
        raise InputError(f"{file}: has a mean or a std alone ({half[0].source}), expected both: {REMEDY}")
    unsaid = [one.file for one in transforms if one.mean is None and one.file.name == EVALUATION]
    if unsaid and not whole:
        raise InputError(
            f"{unsaid[0]}: has no Normalize, so the input's mean and std are not known: {REMEDY}"
        )
    for other in whole[1:]:
        if not _same(whole[0], other):
            raise InputError(
                f"{file}: {_said(whole[0])}, {_said(other)}: the two contradict each other; leave the flags "
                "out, or remove what is not the network's"
            )
    if whole:
        if mean is None:
            log(f"mean and std: {_said(whole[0])}")
        assert whole[0].mean is not None
        assert whole[0].std is not None
        return whole[0].mean, whole[0].std
    return _of_encoder(file, encoder, channels, log)


def _of_transforms(transforms: Sequence[Transform]) -> list[Fact]:
    return [Fact(one.file.name, one.mean, one.std) for one in transforms if one.mean is not None]


def _beside(beside: Mapping[str, Numbers]) -> list[Fact]:
    """Values whose keys differ in mean and std alone belong together."""
    pairs: dict[str, dict[str, tuple[str, Numbers]]] = {}
    for key, values in beside.items():
        stem, _, name = key.rpartition(".")
        which = "mean" if "mean" in name.lower() else "std"
        pairs.setdefault(stem + re.sub("(?i)mean|std", "", name), {})[which] = (key, values)
    facts = []
    for found in pairs.values():
        mean, std = (found[name][1] if name in found else None for name in ("mean", "std"))
        scale = 255 if max(abs(value) for value in (*(mean or ()), *(std or ()))) > LARGEST else 1
        facts.append(
            Fact(
                " and ".join(shown(key) for key, _ in found.values())
                + (" (of 0..255)" if scale != 1 else ""),
                None if mean is None else tuple(one / scale for one in mean),
                None if std is None else tuple(one / scale for one in std),
            )
        )
    return facts


def _per_channel(file: Path, fact: Fact, channels: int) -> Fact:
    """One number stands for all channels; three equal ones stand for one."""

    def spread(values: Numbers | None) -> Numbers | None:
        if values is None or len(values) == channels:
            return values
        if len(set(values)) == 1:
            return values[:1] * channels
        raise InputError(
            f"{file}: takes {channels} channel(s), {fact.source} has {len(values)} numbers: "
            f"{REMEDY}, one each"
        )

    return dataclasses.replace(fact, mean=spread(fact.mean), std=spread(fact.std))


def _same(one: Fact, other: Fact) -> bool:
    pairs = zip(_values(one), _values(other), strict=True)
    return all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-4) for a, b in pairs)


def _values(fact: Fact) -> Numbers:
    return (*(fact.mean or ()), *(fact.std or ()))


def _said(fact: Fact) -> str:
    return f"{fact.source} say mean {plain(fact.mean or ())} and std {plain(fact.std or ())}"


def _of_encoder(
    file: Path, encoder: str, channels: int, log: Callable[[str], None]
) -> tuple[Numbers, Numbers]:
    if channels == 1:
        raise InputError(
            f"{file}: takes 1 channel, for which no encoder has a normalisation: give --mean and --std of "
            "its training, for intensities scaled to 0..1 (0 and 1 if they were only divided by 255)"
        )
    try:
        mean, std = encoder_normalisation(encoder, "imagenet")
    except InputError as error:
        raise InputError(
            f"{file}: the normalisation of encoder '{encoder}' is not known here: {REMEDY}"
        ) from error
    log(f"no --mean and --std: those of {encoder}'s own training, mean {plain(mean)} and std {plain(std)}")
    return mean, std


def plain(values: Numbers) -> str:
    """Numbers as a flag takes them."""
    return ",".join(f"{value:g}" for value in values)
