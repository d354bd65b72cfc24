"""What the exporter starts from: a trained network, whether a run of ours or a foreign file brings it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from tumorseg_export.checkpoint.provenance import origin_of, training_facts
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.processing.input_guard import InputGuard
from tumorseg_train.data.split import Manifest
from tumorseg_train.networks.run import Run

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A trained network, and what its bundle says of it.

    sha256: of the file that holds the weights.
    options: arguments of smp's class that are not its defaults.
    origin: facts that name this very network (`tumorseg_export.checkpoint.context.ExportContext`).
    training: `training` of `bundle.json`.
    golden_from: where the golden images come from, in words, for `bundle.json`.
    load: gives the network in evaluation mode, float32 (N, C, height, width) -> logits (N, K, height, width).
    images: opens the images from which golden ones are chosen; what they need is gone when it is closed.
    guard: the input guard, None where there is none.
    """

    architecture: str
    encoder: str
    contract: Contract
    sha256: str
    options: dict[str, Any]
    origin: dict[str, str]
    training: dict[str, Any]
    golden_from: str
    load: Callable[[], torch.nn.Module]
    images: Callable[[], AbstractContextManager[Manifest]]
    guard: InputGuard | None = None


def from_run(run: Run) -> Checkpoint:
    """The checkpoint of a run of ours; `tumorseg_export.checkpoint.foreign` opens those of others."""
    return Checkpoint(
        architecture=run.architecture,
        encoder=run.encoder,
        contract=run.contract,
        sha256=run.checkpoint_sha256,
        options={},
        origin=origin_of(run),
        training=training_facts(run),
        golden_from="phantoms of the run's split" if run.data["phantoms"] else "images of the run's split",
        load=run.model,
        images=lambda: contextlib.nullcontext(run.manifest()),
        guard=run.guard(),
    )
