"""What every target starts from, and what it gives back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tumorseg_export.engine.tensorrt_build import RtxOptions
from tumorseg_runtime.bundle.bundle import Artefact
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.parity.reference import Golden

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True)
class ExportContext:
    """The network to export.

    model: in evaluation mode, float32 (N, C, height, width) -> logits float32 (N, K, height, width).
    origin: facts that name this very network (checkpoint and split hashes, architecture ...). They go into
        the artefacts themselves, so they must not depend on time or machine.
    golden: images with the logits that `model` gave.
    rtx: what was chosen for the target tensorrt-rtx.
    calibration: images beside the golden ones, to measure the network on and to prove with; they stay out of
        the bundle.
    """

    model: torch.nn.Module
    contract: Contract
    origin: dict[str, str]
    golden: tuple[Golden, ...]
    rtx: RtxOptions = dataclasses.field(default_factory=RtxOptions)
    calibration: tuple[Golden, ...] = ()


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """One artefact, not yet proven, with facts about its making for `bundle.json` (plain values)."""

    artefact: Artefact
    facts: dict[str, Any]


class TargetModule(Protocol):
    """What the module of a target offers."""

    def make(self, context: ExportContext, folder: Path, **options: Any) -> ExportResult:
        """Write the artefact's files into `folder`. The source stays as it is. options: of the target's
        record."""
