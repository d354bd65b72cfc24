"""The benchmark: who may run, who decides what PyTorch decides, and how long each takes.

For each batch size and each group (CPU, GPU): every variant first runs all images, which warms it up and
compares its logits with PyTorch's; who breaks the parity budget is not timed, since a wrong answer has no
speed. The rest are timed in interleaved rounds against the first variant of the group, and so is a second
instance of that very variant: the A/A control, which shows how much of a difference is noise.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumorseg_benchmarks.latency.latency import (
    MIN_ROUNDS,
    PRIME_BELOW_S,
    SHORT_CALLS,
    Call,
    Sample,
    TimingPlan,
    measure,
)
from tumorseg_benchmarks.latency.rows import CONTROL, BenchRow, fill, rank
from tumorseg_benchmarks.latency.stages import Clock, staged_call
from tumorseg_benchmarks.parity.parity import compare
from tumorseg_benchmarks.parity.references import ReferenceSet, golden_reference
from tumorseg_benchmarks.parity.worst_cases import worst_pictures
from tumorseg_benchmarks.variants.candidates import Candidate, open_candidate
from tumorseg_benchmarks.variants.inputs import EncodedImage
from tumorseg_benchmarks.variants.variants import VARIANTS, Variant
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, CheckFailedError, InputError, ParityError
from tumorseg_runtime.core.progress import duration
from tumorseg_runtime.core.session import checked_infer
from tumorseg_runtime.processing.preprocess import Preprocessor

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

GROUPS = ("cpu", "gpu")
AIM_S = 60.0  # of timed rounds for a batch size and group, where the number of rounds is left open
MOST_ROUNDS = 80  # then: as many as the validation of the method has
Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class BenchmarkCase:
    """A candidate and its part in the comparison: 'reference', 'control' or 'variant'."""

    candidate: Candidate
    role: str

    @property
    def name(self) -> str:
        """Key among the cases; the control is another cases than the reference."""
        return self.candidate.variant.name + ("-control" if self.role == "control" else "")

    @property
    def label(self) -> str:
        """For people."""
        return self.candidate.variant.label + (CONTROL if self.role == "control" else "")


def enter(
    bundle: Bundle,
    run: Run | None,
    threads: int,
    variants: Sequence[Variant],
    device_folder: Path | None = None,
) -> list[BenchmarkCase]:
    """Open all variants; in each group the first that runs is the reference and enters twice."""
    cases: list[BenchmarkCase] = []
    for group in GROUPS:
        members = [
            open_candidate(variant, bundle, run, threads, device_folder)
            for variant in variants
            if variant.group == group
        ]
        reference = next((member for member in members if member.session is not None), None)
        for member in members:
            cases.append(BenchmarkCase(member, "reference" if member is reference else "variant"))
            if member is reference:
                again = open_candidate(member.variant, bundle, run, threads, device_folder)
                cases.append(BenchmarkCase(again, "control"))
    return cases


def find_truth(
    cases: Sequence[BenchmarkCase], images: Sequence[EncodedImage], bundle: Bundle, run: Run | None
) -> ReferenceSet:
    """What the logits of the timed images must be.

    With a run: what PyTorch on the CPU says. Without: what PyTorch said at export where the images are the
    golden ones, else what the CPU's reference says, once it has reproduced the golden images.
    Raises BackendError where nothing runs on the CPU, ParityError where the reference itself is wrong.
    """
    first = next((case.candidate for case in cases if case.candidate.session), None)
    if first is None or first.session is None or first.variant.group != "cpu":
        reasons = "; ".join(f"{e.label}: {e.candidate.reason}" for e in cases if e.candidate.reason)
        raise BackendError(f"nothing can run on this CPU ({reasons}): install the extra cpu")
    if run is None:
        golden = golden_reference(bundle)
        report = compare(first.session, first.variant.label, golden, bundle.contract)
        if not report.passed:
            raise ParityError(f"the reference is wrong, nothing was timed: {'; '.join(report.breaches)}")
        if [image.data for image in golden.images] == [image.data for image in images]:
            return golden
    preprocess = Preprocessor(bundle.contract)
    logits = tuple(
        checked_infer(first.session, preprocess(image.pixels(), image.name)[None], bundle.contract)[0]
        for image in images
    )
    return ReferenceSet("timed", tuple(images), logits, None)


@dataclasses.dataclass(frozen=True)
class Bench:
    """What all batches and groups of one benchmark share. `budget_s` counts from `started` (monotonic).

    open_rounds: as many rounds as fit into a minute, instead of the plan's.
    """

    contract: Contract
    truth: ReferenceSet
    plan: TimingPlan
    progress: Progress
    started: float
    clock: Clock = time.perf_counter_ns
    threads: int = 1
    open_rounds: bool = False
    worst: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)  # by the variant's name

    def run(self, cases: Sequence[BenchmarkCase], batches: Sequence[int]) -> list[BenchRow]:
        """All rows: batch by batch, group by group, measured ones by rank."""
        rows: list[BenchRow] = []
        pending = len(batches) * len(GROUPS)
        for batch in batches:
            for group in GROUPS:
                members = [case for case in cases if case.candidate.variant.group == group]
                rows += self._run_group(members, batch, pending)
                pending -= 1
        return rows

    def _run_group(self, members: Sequence[BenchmarkCase], batch: int, pending: int) -> list[BenchRow]:
        fit: list[BenchmarkCase] = []
        rows: dict[str, BenchRow] = {}
        slowest, total = 0.0, 0.0  # seconds of a call
        for case in members:
            row = self._admit(case, batch)
            rows[case.name] = row
            if row.status == "measured":
                seconds = self._seconds(case, batch)
                slowest, total = max(slowest, seconds), total + seconds
                fit.append(case)
        if not fit:
            return list(rows.values())
        if fit[0].role != "reference":
            reason = "the group's reference was not fit to be timed, so there is nothing to compare with"
            return [self._unmeasured(row, reason) for row in rows.values()]
        prime = slowest < PRIME_BELOW_S
        turn = SHORT_CALLS if prime else 1
        round_s = total * (turn + prime) + self.plan.settle_s * len(fit)
        left = self._budget_left()
        if left is not None and MIN_ROUNDS * round_s > left:
            reason = (
                f"{MIN_ROUNDS} rounds take about {MIN_ROUNDS * round_s:.0f} s, {max(left, 0):.0f} s of the "
                "budget are left"
            )
            return [self._unmeasured(row, reason) for row in rows.values()]
        plan = dataclasses.replace(self.plan, budget_s=None if left is None else left / pending)
        if self.open_rounds:
            plan = dataclasses.replace(plan, rounds=min(max(int(AIM_S / round_s), MIN_ROUNDS), MOST_ROUNDS))
        samples = measure(
            {case.name: self._call(case, batch) for case in fit},
            plan,
            prime=prime,
            calls_per_turn=turn,
            progress=lambda number, taken: self._report(batch, number, plan.rounds, round_s, fit, taken),
        )
        for case in fit:
            rows[case.name] = fill(rows[case.name], samples[case.name], samples[fit[0].name])
        return rank(list(rows.values()))

    def _admit(self, case: BenchmarkCase, batch: int) -> BenchRow:
        """Warm up and compare: a row that is 'measured' but still without figures, or says why not."""
        session, variant = case.candidate.session, case.candidate.variant
        blank = BenchRow(variant, case.label, case.role, batch, "measured", threads=self.threads)
        if session is None:
            return self._unmeasured(blank, case.candidate.reason)
        blank = dataclasses.replace(blank, versions=session.info.versions)
        limit = session.input.max_batch
        if limit is not None and batch > limit:
            return self._unmeasured(blank, f"takes at most {limit} images at once")
        self.progress(f"batch {batch}: {case.label}: warm-up and parity on {len(self.truth.images)} images")
        try:
            report = compare(session, case.label, self.truth, self.contract, batch)
        except (CheckFailedError, BackendError, InputError) as error:
            return self._unmeasured(blank, str(error))
        if case.role != "control" and variant.name not in self.worst:
            self.worst[variant.name] = worst_pictures(session, report, self.truth, self.contract)
        if not report.passed:
            reason = f"{report.worst.image}: {'; '.join(report.worst.breaches)}"
            return dataclasses.replace(blank, status="refused: parity", reason=reason, parity=report)
        return dataclasses.replace(blank, parity=report)

    def _unmeasured(self, row: BenchRow, reason: str) -> BenchRow:
        """The row with this reason in place of figures, unless it has a reason already."""
        return row if row.reason else dataclasses.replace(row, status="not measured", reason=reason)

    def _call(self, case: BenchmarkCase, batch: int) -> Call:
        session, images = case.candidate.session, self.truth.images
        assert session is not None
        preprocess = Preprocessor(self.contract)

        def call(number: int) -> dict[str, int]:
            chosen = [images[(number * batch + offset) % len(images)] for offset in range(batch)]
            return staged_call(session, self.contract, preprocess, chosen, self.clock)

        return call

    def _seconds(self, case: BenchmarkCase, batch: int) -> float:
        """Of one more call, now that it is warm: the first ones may have compiled."""
        ns = self._call(case, batch)(0)
        return Sample(0, 0, {stage: taken / 1e6 for stage, taken in ns.items()}).total_ms / 1000

    def _budget_left(self) -> float | None:
        if self.plan.budget_s is None:
            return None
        return self.plan.budget_s - (time.monotonic() - self.started)

    def _report(
        self,
        batch: int,
        number: int,
        rounds: int,
        round_s: float,
        fit: Sequence[BenchmarkCase],
        taken: dict[str, Sample],
    ) -> None:
        times = "; ".join(f"{case.label} {taken[case.name].ms['infer']:.3g} ms" for case in fit)
        left = duration((rounds - number - 1) * round_s)
        self.progress(f"batch {batch}: round {number + 1}/{rounds}, {left} left: {times}")


def run_bench(
    bundle: Bundle,
    run: Run | None,
    images: Sequence[EncodedImage],
    batches: Sequence[int],
    threads: int,
    plan: TimingPlan,
    progress: Progress = lambda line: None,
    variants: Sequence[Variant] = VARIANTS,
    device_folder: Path | None = None,
    open_rounds: bool = False,
    worst: dict[str, dict[str, Any]] | None = None,
) -> list[BenchRow]:
    """Open, check and time all variants on the images.

    worst: is given the worst image of each variant by its name (`tumorseg_benchmarks.parity.worst_cases`).
    """
    started = time.monotonic()
    cases = enter(bundle, run, threads, variants, device_folder)
    progress(f"the right logits of {len(images)} images")
    truth = find_truth(cases, images, bundle, run)
    bench = Bench(
        bundle.contract,
        truth,
        plan,
        progress,
        started,
        threads=threads,
        open_rounds=open_rounds,
        worst={} if worst is None else worst,
    )
    return bench.run(cases, batches)
