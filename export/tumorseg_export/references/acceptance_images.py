"""The images that judge INT8: those of the test part, and of validation where these are few, without any
image that it was calibrated on or that belongs to a group of such."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tumorseg_export.references.golden_images import in_turn, make_golden
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.parity.reference import Golden
from tumorseg_runtime.processing.decision import decide
from tumorseg_train.data.split import Item, Manifest
from tumorseg_train.report.noninferiority import FEWEST_GROUPS

if TYPE_CHECKING:
    import torch

BoolArray = npt.NDArray[np.bool_]
JUDGED = 64  # at most


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """images: with PyTorch's logits. truths: bool (h, w) of each at the network's size; PyTorch's own masks
    where `known` is False. groups: of each image (a patient, near-duplicates), its own name where it is in
    none."""

    images: tuple[Golden, ...]
    truths: tuple[BoolArray, ...]
    groups: tuple[str, ...]
    known: bool


def choose_judged(manifest: Manifest, calibration: Sequence[Item]) -> tuple[Item, ...]:
    """At most `JUDGED` items, in turn of each organ with and without tumour."""
    hashes = {item.files[item.image] for item in calibration}
    groups = {item.group for item in calibration if item.group}

    def fresh(part: str) -> list[Item]:
        items = in_turn(manifest.part(part))
        return [one for one in items if one.files[one.image] not in hashes and one.group not in groups]

    chosen = fresh("test")
    if len({item.group or item.image for item in chosen if item.tumour_px}) < FEWEST_GROUPS:
        chosen += fresh("val")
    return tuple(chosen[:JUDGED])


def make_judged(
    model: torch.nn.Module, manifest: Manifest, items: Sequence[Item], contract: Contract
) -> Judged:
    """PyTorch's answer to every item, and the truth; raises what `make_golden` raises."""
    from tumorseg_train.data.loader import read_resized

    images = make_golden(model, manifest, items, contract)
    known = any(item.tumour_px for item in items)
    if known:
        size = contract.height, contract.width
        truths = tuple(read_resized(manifest, item, *size)[1].astype(np.bool_) for item in items)
    else:
        truths = tuple(np.asarray(decide(image.logits, contract).any(axis=0)) for image in images)
    return Judged(images, truths, tuple(item.group or item.image for item in items), known)
