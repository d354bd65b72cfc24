"""Sharing groups out, so that every part gets its share of each organ, class and lesion size.

The largest groups first; within a size by a draw from seed and content. Each goes where it is missed most:
to the part for which the sum of squared distances between counts and targets, each over its target, grows
least. Images without group mates, the last, even out what the groups left.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Stratum: TypeAlias = tuple[str, str, bool]
Feature: TypeAlias = tuple[Stratum, int | None]  # a stratum, or a class of lesion size in it
SIZES = 3  # classes of lesion size in a stratum, of equal counts
SIZE_WEIGHT = 0.25  # of a class of lesion size, where organ, class and tumour or not count 1


@dataclasses.dataclass(frozen=True)
class Member:
    """An image to share out. draw: SHA-256 of the image. stratum: organ, class, whether there is a tumour.

    size: area of the tumour over the image's.
    """

    name: str
    group: str
    draw: str
    stratum: Stratum
    size: float


def stratify(members: Sequence[Member], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """The part of every member by its name; groups stay whole. shares: part -> fraction, in order."""
    features: dict[str, tuple[Feature, ...]] = {
        member.name: ((member.stratum, None), (member.stratum, size)) for member, size in _sizes(members)
    }
    targets = _targets(members, features, shares)
    have: dict[str, Counter[Feature]] = {part: Counter() for part in shares}
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(member.group, []).append(member)
    parts: dict[str, str] = {}
    for group in sorted(groups.values(), key=lambda group: (-len(group), _draw(seed, group))):
        gain = Counter(feature for member in group for feature in features[member.name])

        costs = {part: _cost(gain, have[part], targets[part]) for part in shares}
        part = min(shares, key=costs.__getitem__)  # ties in the order of the parts
        have[part].update(gain)
        parts |= {member.name: part for member in group}
    return parts


def _cost(gain: Counter[Feature], have: Counter[Feature], targets: Mapping[Feature, float]) -> float:
    """What a part's distance from its targets grows by, if it has so many images and gets these."""
    return sum(
        (1.0 if feature[1] is None else SIZE_WEIGHT)
        * (2 * more * (have[feature] - targets[feature]) + more**2)
        / max(targets[feature], 1.0)
        for feature, more in gain.items()
    )


def _draw(seed: int, group: Sequence[Member]) -> bytes:
    """A draw that depends on the seed and the images' bytes alone."""
    return hashlib.sha256(" ".join([str(seed), *sorted(member.draw for member in group)]).encode()).digest()


def _sizes(members: Sequence[Member]) -> list[tuple[Member, int]]:
    """Each member with its class of lesion size within its stratum, from 0 for the smallest."""
    strata: dict[Stratum, list[Member]] = {}
    for member in sorted(members, key=lambda member: (member.size, member.draw)):
        strata.setdefault(member.stratum, []).append(member)
    return [
        (member, rank * SIZES // len(stratum))
        for stratum in strata.values()
        for rank, member in enumerate(stratum)
    ]


def _targets(
    members: Sequence[Member], features: Mapping[str, tuple[Feature, ...]], shares: Mapping[str, float]
) -> dict[str, dict[Feature, float]]:
    """Images of each feature that each part should have; of a stratum of three or more at least one."""
    counts = Counter(feature for member in members for feature in features[member.name])
    targets: dict[str, dict[Feature, float]] = {part: {} for part in shares}
    for feature, count in counts.items():
        least = 1 if count >= len(shares) else 0
        wanted = {part: max(fraction * count, least) for part, fraction in shares.items()}
        for part in shares:
            targets[part][feature] = wanted[part] * count / sum(wanted.values())
    return targets
