"""What a network costs: numbers that it holds, operations for one image, and time where it was measured."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tumorseg_runtime.bundle.bundle import INDEX as BUNDLE_INDEX
from tumorseg_runtime.bundle.bundle import Bundle, sha256_of
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.records import Fields, Format

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

FORMAT = Format("bench.json of `tumorseg bench`", "make it again", error=InputError, max_bytes=2**28)
_BENCH = Fields(
    kind=Literal["bench"],
    machine=Fields(cpu=str, gpu=str),
    load_average=Fields(before=[float]),
    run=(Fields(checkpoint_sha256=str), None),
    bundle=Fields(path=str, sha256=str),
    rows=[
        Fields(
            label=str, role=str, batch=int, threads=int, status=str, variant=Fields(engine=str, device=str)
        )
    ],
)
_STATS = Fields(median=float, p25=float, p75=float)
_MEASURED = Fields(stages=Fields(infer=_STATS, end_to_end=_STATS))
BUSY = 0.5  # load average before a benchmark from which on its times are doubted


@dataclasses.dataclass(frozen=True)
class Latency:
    """The fastest artefact of a bundle at batch 1, PyTorch left out.

    infer_ms: median; low_ms, high_ms: quartiles. end_to_end_ms: median from file to mask.
    busy: other programs were running, or nobody knows.
    """

    artefact: str
    infer_ms: float
    low_ms: float
    high_ms: float
    end_to_end_ms: float
    machine: str
    busy: bool


def count_costs(run: Run) -> tuple[int, float]:
    """(parameters, GFLOP for one image at the contract's size).

    Counted are convolutions and matrix products, a multiplication and its addition as two, as the exporter
    counts them. Nothing is computed: the network lies on torch's meta device.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from tumorseg_train.networks.models import build_model, count_parameters

    contract = run.contract
    model = build_model(
        run.architecture, run.encoder, channels=contract.channels, classes=len(contract.classes)
    )
    model = model.eval().to("meta")
    image = torch.zeros(1, contract.channels, contract.height, contract.width, device="meta")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(image)
    return count_parameters(model), counter.get_total_flops() / 1e9


def read_latencies(paths: Sequence[Path]) -> tuple[dict[str, Latency], list[str]]:
    """The best artefact by the SHA-256 of the checkpoint it was made from, and what could not be used, a line
    each. paths: bench.json files of `tumorseg bench`. Raises InputError for a file that is none."""
    found: dict[str, Latency] = {}
    notes = []
    for path in paths:
        values = FORMAT.read(path, _BENCH)
        checkpoint = _checkpoint(values)
        latency = _best(values, path)
        if checkpoint is None:
            notes.append(f"{path}: does not say from which run its bundle was made: bench with --run.")
        elif latency is None:
            notes.append(f"{path}: no artefact was measured at batch 1.")
        elif checkpoint not in found or latency.infer_ms < found[checkpoint].infer_ms:
            found[checkpoint] = latency
    return found, notes


def _checkpoint(values: dict[str, Any]) -> str | None:
    """SHA-256 of the checkpoint: of the benchmark's run, else of its bundle if it is still there."""
    if values["run"]:
        return str(values["run"]["checkpoint_sha256"])
    root = Path(values["bundle"]["path"])
    index = root / BUNDLE_INDEX
    if not os.path.isfile(index) or sha256_of(index) != values["bundle"]["sha256"]:
        return None
    checkpoint = Bundle.read_index(root).provenance.get("checkpoint_sha256")
    return None if checkpoint is None else str(checkpoint)


def _best(values: dict[str, Any], path: Path) -> Latency | None:
    rows = [
        FORMAT.check(row, path, _MEASURED)
        for row in values["rows"]
        if row["batch"] == 1
        and row["status"] == "measured"
        and row["role"] != "control"
        and row["variant"]["engine"] != "pytorch"
    ]
    if not rows:
        return None
    row = min(rows, key=lambda row: float(row["stages"]["infer"]["median"]))
    infer, whole = row["stages"]["infer"], row["stages"]["end_to_end"]
    machine, load = values["machine"], values["load_average"]["before"]
    return Latency(
        artefact=row["label"],
        infer_ms=infer["median"],
        low_ms=infer["p25"],
        high_ms=infer["p75"],
        end_to_end_ms=whole["median"],
        machine=f"{machine['cpu']}, {row['threads']} threads"
        if row["variant"]["device"] == "cpu"
        else machine["gpu"],
        busy=not load or load[0] > BUSY,
    )
