"""Groups: images that must not fall on two sides of a split, because they show one patient or one scene.

patient           the data names the patient
slices            a block of neighbouring slice numbers: a proxy for the patient, who is not named.
                  Neighbouring numbers are often one patient; a block ends where the next slice looks least
                  like it, but it may hold several patients, and may cut one
near-duplicates   images that look alike (`tumorseg_train.data.near_duplicates`), in any class
image             an image by itself

Groups that share an image are one group, named for the first of these kinds in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from tumorseg_train.data.checks import Facts
from tumorseg_train.data.datasets import Sample
from tumorseg_train.data.near_duplicates import Fingerprint, alike, similarity

PATIENT, SLICES, LIKE, ALONE = KINDS = ("patient", "slices", "near-duplicates", "image")
MEANING = {
    PATIENT: "patient number of the data",
    SLICES: "block of neighbouring slice numbers, a proxy for the patient",
    LIKE: "near-duplicates by perceptual hash and correlation",
    ALONE: "a single image",
}
# Least similarity of near-duplicates. Brain slices of strangers reach 0.50 (one outline, one place); frames
# of strangers reach 0.35, and below 0.5 they still are of one lesion (both looked at, docs/data.md).
NEAR = {"brain": 0.55, "breast": 0.40}
NEAR_ELSEWHERE = 0.40  # of other organs: the lower one, since a group too large costs less than a leak
SPAN = (20, 40)  # numbers in a block of slices: at least, at most. A patient has 13 slices on average
_SEEN = 2  # slices on each side of a cut that are compared


@dataclasses.dataclass(frozen=True)
class Group:
    """name: unique in the data. kind: one of `KINDS`."""

    name: str
    kind: str


def group_samples(
    samples: Sequence[Sample], facts: dict[str, Facts], hashes: dict[str, str], *, drawn: bool = False
) -> dict[str, Group]:
    """The group of every image by its path.

    hashes: SHA-256 by path; images with equal bytes are near-duplicates. drawn: these are phantoms, each of a
    new nobody, however alike the drawings and their numbers are. The groups depend on looks, hashes, patients
    and slice numbers alone.
    """
    ordered = sorted(samples, key=lambda sample: (hashes[sample.image], sample.image))
    edges = {
        PATIENT: _patients(ordered),
        SLICES: [] if drawn else _blocks(ordered, facts),
        LIKE: [pair[:2] for pair in near_duplicates(ordered, facts, hashes, drawn=drawn)],
    }
    leader = {sample.image: sample.image for sample in ordered}

    def find(image: str) -> str:
        while leader[image] != image:
            image = leader[image]
        return image

    for pairs in edges.values():
        for first, second in pairs:
            leader[find(second)] = find(first)
    kinds = {image: kind for kind in reversed(KINDS[:-1]) for pair in edges[kind] for image in pair}
    members: dict[str, list[str]] = {}
    for sample in ordered:
        members.setdefault(find(sample.image), []).append(sample.image)
    groups: dict[str, Group] = {}
    for images in members.values():
        kind = min((kinds.get(image, ALONE) for image in images), key=KINDS.index)
        name = hashlib.sha256(" ".join(sorted(hashes[image] for image in images)).encode()).hexdigest()
        groups |= {image: Group(f"{kind}-{name[:12]}", kind) for image in images}
    return groups


def near_duplicates(
    samples: Sequence[Sample], facts: dict[str, Facts], hashes: dict[str, str], *, drawn: bool = False
) -> list[tuple[str, str, float]]:
    """(image, image, similarity) of all pairs of one organ that look alike, in any class; 1 for equal bytes.

    Of phantoms (`drawn`) and across organs only images with equal bytes.
    """
    pairs: dict[tuple[str, str], float] = {}
    for organ in sorted({sample.organ for sample in samples}):
        least = NEAR.get(organ, NEAR_ELSEWHERE)
        images = [s.image for s in samples if s.organ == organ and s.compared and not drawn]
        found = alike([facts[image].fingerprint for image in images], least)
        pairs |= {(images[i], images[j]): value for i, j, value in found}
    first: dict[str, str] = {}
    for sample in samples:
        copied = first.setdefault(hashes[sample.image], sample.image)
        if copied != sample.image:
            pairs[copied, sample.image] = 1.0
    return [(one, other, value) for (one, other), value in pairs.items()]


def _patients(samples: Sequence[Sample]) -> list[tuple[str, str]]:
    """Each image with the first one of its patient; a patient's only image with itself."""
    first: dict[str, str] = {}
    return [
        (first.setdefault(sample.patient, sample.image), sample.image) for sample in samples if sample.patient
    ]


def _blocks(samples: Sequence[Sample], facts: dict[str, Facts]) -> list[tuple[str, str]]:
    """Each slice without a patient, but with a number, with the first slice of its block."""
    folders: dict[PurePosixPath, list[tuple[int, str]]] = {}
    for sample in samples:
        path = PurePosixPath(sample.image)
        if sample.neighbours and not sample.patient and re.fullmatch(r"\d+", path.stem):
            folders.setdefault(path.parent, []).append((int(path.stem), sample.image))
    pairs = []
    for slices in folders.values():
        slices.sort()
        fingerprints = [facts[image].fingerprint for _, image in slices]
        for block in cut_blocks([number for number, _ in slices], fingerprints):
            pairs += [(slices[block.start][1], slices[n][1]) for n in block]
    return pairs


def cut_blocks(numbers: Sequence[int], fingerprints: Sequence[Fingerprint]) -> list[range]:
    """Cut ascending slice numbers into blocks that span `SPAN` numbers; the last one may be shorter.

    Of the places where a block may end, the one where the slices on both sides are least alike.
    """
    blocks: list[range] = []
    start = 0
    while start < len(numbers):
        span = [numbers[n] - numbers[start] for n in range(start, len(numbers))]
        ends = [start + n for n, width in enumerate(span) if SPAN[0] <= width <= SPAN[1]]
        beyond = next((start + n for n, width in enumerate(span) if width > SPAN[1]), len(numbers))
        end = beyond
        if beyond < len(numbers):
            end = min([*ends, beyond], key=lambda end: _across(fingerprints, end))
        blocks.append(range(start, end))
        start = end
    return blocks


def _across(fingerprints: Sequence[Fingerprint], cut: int) -> float:
    """The greatest similarity of slices on the two sides of a cut before slice `cut`."""
    before = fingerprints[max(cut - _SEEN, 0) : cut]
    return max(similarity(a, b) for a in before for b in fingerprints[cut : cut + _SEEN])
