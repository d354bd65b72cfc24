"""One row of a benchmark: a variant at one batch size and thread count, and the figures that follow from its
samples and its reference's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tumorseg_benchmarks.latency.intervals import SAME_SPEED, SpeedUp, Trend
from tumorseg_benchmarks.latency.latency import LatencyStats, Sample, speed_up, turns
from tumorseg_benchmarks.latency.stages import PARTS, STAGES
from tumorseg_benchmarks.variants.variants import Variant
from tumorseg_runtime.parity.compare import ParityReport

CONTROL = " (A/A control)"  # follows the label of the reference's second instance
END_TO_END = "end_to_end"


@dataclasses.dataclass(frozen=True)
class BenchRow:
    """One cases at one batch size and thread count.

    status: 'measured', 'refused: parity' or 'not measured'; only the first has figures, the others a reason.
    threads: CPU threads; for a variant of the GPU those of its host's side.
    parity: against PyTorch, on the timed images at this batch size.
    stages: milliseconds per call by stage, and their sum as 'end_to_end'.
    images_per_second: batch / median of the stage 'infer'.
    speed_up: of 'infer' against the group's reference, paired by round; end_to_end_speed_up: of all stages.
    trend: trend of 'infer' over the rounds.
    within_noise: no difference from the reference was found. rank: 1 has the largest speed-up of the group,
        the reference counting as 1; the control has none.
    """

    variant: Variant
    label: str
    role: str
    batch: int
    status: str
    reason: str = ""
    threads: int = 1
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    parity: ParityReport | None = None
    samples: tuple[Sample, ...] = ()
    stages: dict[str, LatencyStats] = dataclasses.field(default_factory=dict)
    images_per_second: float | None = None
    speed_up: SpeedUp | None = None
    end_to_end_speed_up: SpeedUp | None = None
    trend: Trend | None = None
    within_noise: bool | None = None
    rank: int | None = None

    @property
    def rounds(self) -> int:
        """Rounds that were run."""
        return len({sample.round for sample in self.samples})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = dataclasses.asdict(self)
        values["parity"] = self.parity.to_dict() if self.parity else None
        for name in ("speed_up", "end_to_end_speed_up"):
            gain = getattr(self, name)
            values[name] = gain.to_dict() if gain else None
        return {**values, "variant": {**values["variant"], "name": self.variant.name}}


def fill(row: BenchRow, samples: Sequence[Sample], reference: Sequence[Sample]) -> BenchRow:
    """The row with all figures that follow from its samples and the reference's."""
    there = [stage for stage in (*STAGES, *PARTS) if stage in samples[0].ms]
    stages = {stage: LatencyStats.of([sample.ms[stage] for sample in samples]) for stage in there}
    stages[END_TO_END] = LatencyStats.of([sample.total_ms for sample in samples])
    first = row.role == "reference"
    return dataclasses.replace(
        row,
        samples=tuple(samples),
        stages=stages,
        images_per_second=row.batch * 1000 / stages["infer"].median,
        speed_up=None if first else speed_up(reference, samples),
        end_to_end_speed_up=None if first else speed_up(reference, samples, END_TO_END),
        trend=Trend.of(turns(samples)),
    )


def rank(rows: Sequence[BenchRow]) -> list[BenchRow]:
    """Measured rows with their ranks and verdicts, fastest first, then the others.

    The paired speed-up ranks and not the median: on a busy machine they may disagree, and pairs are right.
    """
    measured = sorted(
        (row for row in rows if row.status == "measured"),
        key=lambda row: row.speed_up.median if row.speed_up else 1.0,
        reverse=True,
    )
    ranked = []
    place = 0
    for row in measured:
        place += row.role != "control"
        noise = None
        if row.role == "variant" and row.speed_up:
            noise = row.speed_up.verdict == SAME_SPEED
        ranked.append(
            dataclasses.replace(row, rank=None if row.role == "control" else place, within_noise=noise)
        )
    return ranked + [row for row in rows if row.status != "measured"]


def reference_facts(rows: Sequence[BenchRow], has_run: bool) -> dict[str, str]:
    """In words: what the speed-ups are against, and where the right logits come from."""
    names = dict.fromkeys(row.label for row in rows if row.role == "reference")
    if not has_run:
        return {
            "timed_against": " and ".join(names) + " (no run was given, so PyTorch was not timed)",
            "logits_from": "PyTorch's at export, on the golden images; on other images ONNX FP32's",
        }
    return {
        "timed_against": " and ".join(names),
        "logits_from": "PyTorch's FP32 on the CPU, on the timed images",
    }
