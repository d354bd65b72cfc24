"""The benchmark on fake sessions, with a clock of their own."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

from fakes.session import FakeSession
from tumorseg_benchmarks.latency.bench import Bench, BenchmarkCase, enter, find_truth
from tumorseg_benchmarks.latency.latency import Sample, TimingPlan
from tumorseg_benchmarks.latency.rows import BenchRow, fill, rank
from tumorseg_benchmarks.parity.references import ReferenceSet, golden_reference
from tumorseg_benchmarks.reports.bench_report import bench_table, noise_lines
from tumorseg_benchmarks.variants.candidates import Candidate
from tumorseg_benchmarks.variants.variants import Variant
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BackendError, ParityError
from tumorseg_runtime.processing.preprocess import Preprocessor

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

FloatArray = npt.NDArray[np.float32]
VARIANTS_BY_LABEL = {
    label: Variant(label, f"format{index}", "fake", "cpu", "fp32")
    for index, label in enumerate(("reference", "fast", "slow", "wrong", "small", "absent"))
}


class Clock:
    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        self.ns += 1_000_000  # every look at the clock takes a millisecond
        return self.ns


class TimedSession(FakeSession):
    """A fake network that takes a given time per image on the clock."""

    def __init__(self, clock: Clock, ms: float, gain: float = 1.0, max_batch: int | None = None) -> None:
        super().__init__(gain=gain, max_batch=max_batch)
        self.clock, self.ms_per_image = clock, ms

    def infer(self, batch: FloatArray) -> FloatArray:
        self.clock.ns += int(self.ms_per_image * 1e6) * len(batch)
        return super().infer(batch)


@pytest.fixture
def rows(tiny_bundle: Bundle) -> dict[tuple[str, int], BenchRow]:
    """Rows of fake variants at batch 1 and 4, by label and batch."""
    clock = Clock()
    sessions = {
        "reference": TimedSession(clock, 10),
        "fast": TimedSession(clock, 5),
        "slow": TimedSession(clock, 20),
        "wrong": TimedSession(clock, 1, gain=1.1),
        "small": TimedSession(clock, 8, max_batch=1),
        "absent": None,
    }
    cases = [
        BenchmarkCase(
            Candidate(VARIANTS_BY_LABEL[label], session, "" if session else "no such device"),
            "reference" if label == "reference" else "variant",
        )
        for label, session in sessions.items()
    ]
    control = Candidate(VARIANTS_BY_LABEL["reference"], TimedSession(clock, 10))
    cases.append(BenchmarkCase(control, "control"))
    plan = TimingPlan(rounds=9, settle_s=0.0)
    found = Bench(
        tiny_bundle.contract, fake_truth(tiny_bundle), plan, lambda line: None, time.monotonic(), clock
    ).run(cases, [1, 4])
    return {(row.label, row.batch): row for row in found}


def fake_truth(bundle: Bundle) -> ReferenceSet:
    golden = golden_reference(bundle)
    preprocess = Preprocessor(bundle.contract)
    logits = [FakeSession().infer(preprocess(image.pixels())[None])[0] for image in golden.images]
    return dataclasses.replace(golden, logits=tuple(logits))


def test_figures_of_measured_rows(rows: dict[tuple[str, int], BenchRow]) -> None:
    for batch in (1, 4):
        for label, ms, gain in (("reference", 10, None), ("fast", 5, 2), ("slow", 20, 0.5)):
            row = rows[label, batch]
            infer = ms * batch + 1  # the clock's own millisecond
            assert row.status == "measured"
            assert row.stages["infer"].median == pytest.approx(infer)
            assert row.stages["end_to_end"].median == pytest.approx(infer + 3)
            assert row.images_per_second == pytest.approx(1000 * batch / infer)
            assert (row.rounds, len(row.samples)) == (9, 27)  # three short calls in each turn
            if gain is None:
                assert row.speed_up is None
            else:
                assert row.speed_up is not None
                assert row.speed_up.median == pytest.approx((10 * batch + 1) / infer)
                assert row.within_noise is False
                whole = row.end_to_end_speed_up
                assert whole is not None
                assert whole.median == pytest.approx((10 * batch + 4) / (infer + 3))


def test_ranks_leave_out_the_control_and_all_that_was_not_timed(
    rows: dict[tuple[str, int], BenchRow],
) -> None:
    ranks = {label: row.rank for (label, batch), row in rows.items() if batch == 1}
    assert ranks == {
        "fast": 1, "small": 2, "reference": 3, "slow": 4,
        "reference (A/A control)": None, "wrong": None, "absent": None,
    }  # fmt: skip
    control = rows["reference (A/A control)", 1].speed_up
    assert control is not None
    assert control.median == pytest.approx(1)
    (line,) = noise_lines([rows["reference (A/A control)", 1]])
    assert line.startswith("A/A control: reference against itself: 1.000 times as fast (1.000-1.000; ")


@pytest.mark.parametrize(
    ("label", "batch", "status", "reason"),
    [
        ("absent", 1, "not measured", "no such device"),
        ("small", 4, "not measured", "takes at most 1 images at once"),
        ("wrong", 1, "refused: parity", "logit error"),
    ],
)
def test_rows_without_figures_have_the_reason_and_no_number(
    rows: dict[tuple[str, int], BenchRow], label: str, batch: int, status: str, reason: str
) -> None:
    row = rows[label, batch]
    assert row.status == status
    assert reason in row.reason
    assert (row.samples, row.stages, row.images_per_second, row.speed_up, row.rank) == (
        (),
        {},
        None,
        None,
        None,
    )
    (cells,) = bench_table([row]).rows
    assert cells[1:-1] == ("-",) * 11
    assert cells[-1] == f"{status}: {row.reason}"


def test_pairs_rank_and_not_medians() -> None:
    """On a machine that slowed down, one variant has the better pairs and the worse median."""

    def row(label: str, role: str, ms: list[float]) -> BenchRow:
        stages = {"decode": 0.0, "preprocess": 0.0, "postprocess": 0.0}
        samples = [Sample(number, 0, {**stages, "infer": one}) for number, one in enumerate(ms)]
        blank = BenchRow(VARIANTS_BY_LABEL[label], label, role, 1, "measured")
        return fill(blank, samples, reference)

    base = [10.0, 10, 10, 10, 40, 40, 40, 40, 40]
    reference = [Sample(number, 0, {"infer": ms}) for number, ms in enumerate(base)]
    pairs = row("fast", "variant", [5.0, 5, 5, 5, 41, 20, 20, 20, 20])
    median = row("slow", "variant", [12.0, 12, 12, 12, 12, 42, 42, 42, 42])
    assert pairs.stages["infer"].median > median.stages["infer"].median
    first, second, third = rank([median, row("reference", "reference", base), pairs])
    assert [(r.label, r.rank) for r in (first, second, third)] == [
        ("fast", 1),
        ("reference", 2),
        ("slow", 3),
    ]


def test_a_wrong_variant_is_never_timed(tiny_bundle: Bundle) -> None:
    clock = Clock()
    wrong = TimedSession(clock, 1, gain=1.1)
    cases = [
        BenchmarkCase(Candidate(VARIANTS_BY_LABEL["reference"], TimedSession(clock, 1)), "reference"),
        BenchmarkCase(Candidate(VARIANTS_BY_LABEL["wrong"], wrong), "variant"),
    ]
    plan = TimingPlan(settle_s=0.0)
    Bench(tiny_bundle.contract, fake_truth(tiny_bundle), plan, lambda line: None, 0.0, clock).run(cases, [1])
    assert wrong.batches == [1] * (len(tiny_bundle.golden) + 1)  # the comparison and its picture alone


def test_a_first_call_that_compiles_costs_no_rounds(tiny_bundle: Bundle) -> None:
    """Calls of 10 ms are short, whatever the first one took: a turn is three of them, in 80 rounds."""
    clock = Clock()

    class Compiled(TimedSession):
        def infer(self, batch: FloatArray) -> FloatArray:
            if not self.batches:
                self.clock.ns += 60 * 10**9
            return super().infer(batch)

    case = BenchmarkCase(Candidate(VARIANTS_BY_LABEL["reference"], Compiled(clock, 10)), "reference")
    bench = Bench(
        tiny_bundle.contract, fake_truth(tiny_bundle), TimingPlan(settle_s=0.0), lambda line: None, 0.0,
        clock, open_rounds=True,
    )  # fmt: skip
    (row,) = bench.run([case], [1])
    assert (row.rounds, len(row.samples)) == (80, 240)
    assert row.stages["infer"].max == pytest.approx(11.0)


def test_cpu_and_gpu_are_timed_apart_each_with_its_own_reference_and_control(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    ms = {"absent cpu": None, "cpu": 40, "cpu fp16": 20, "gpu": 4, "gpu fp16": 1}
    variants = [
        Variant(label, f"f{index}", "fake", "cuda" if "gpu" in label else "cpu", "fp32")
        for index, label in enumerate(ms)
    ]
    order: list[str] = []

    class Noted(TimedSession):
        def __init__(self, label: str) -> None:
            super().__init__(clock, float(ms[label] or 0))
            self.label = label

        def infer(self, batch: FloatArray) -> FloatArray:
            order.append(self.label[:3])
            return super().infer(batch)

    def open_fake(
        variant: Variant, bundle: Bundle, run: Run | None, threads: int | None, device_folder: Path | None
    ) -> Candidate:
        if ms[variant.label] is None:
            return Candidate(variant, None, "no such device")
        return Candidate(variant, Noted(variant.label))

    monkeypatch.setattr("tumorseg_benchmarks.latency.bench.open_candidate", open_fake)
    cases = enter(tiny_bundle, None, 1, variants)
    assert [(case.label, case.role) for case in cases] == [
        ("absent cpu", "variant"),
        ("cpu", "reference"),
        ("cpu (A/A control)", "control"),
        ("cpu fp16", "variant"),
        ("gpu", "reference"),
        ("gpu (A/A control)", "control"),
        ("gpu fp16", "variant"),
    ]
    found = Bench(
        tiny_bundle.contract, fake_truth(tiny_bundle), TimingPlan(settle_s=0.0), lambda line: None, 0.0, clock
    ).run(cases, [1])
    assert "".join(order).count("cpugpu") == 1, "no GPU variant runs before the last CPU variant is done"
    rows = {row.label: row for row in found}
    assert (rows["gpu fp16"].rank, rows["gpu"].rank, rows["cpu fp16"].rank) == (1, 2, 1)
    gain = rows["gpu fp16"].speed_up
    assert gain is not None
    assert gain.median == pytest.approx(5 / 2)  # against the GPU's reference; 1 ms is the clock's own
    assert "gpucpu" not in "".join(order)


def test_a_budget_that_cannot_hold_eight_rounds_is_said_and_nothing_is_timed(tiny_bundle: Bundle) -> None:
    clock = Clock()
    case = BenchmarkCase(Candidate(VARIANTS_BY_LABEL["reference"], TimedSession(clock, 1)), "reference")
    plan = TimingPlan(budget_s=1e-6)
    (row,) = Bench(
        tiny_bundle.contract, fake_truth(tiny_bundle), plan, lambda line: None, time.monotonic(), clock
    ).run([case], [1])
    assert row.status == "not measured"
    assert "8 rounds take about" in row.reason
    assert not row.samples


def test_without_a_run_the_reference_must_reproduce_the_golden_images(tiny_bundle: Bundle) -> None:
    images = golden_reference(tiny_bundle).images
    wrong = BenchmarkCase(Candidate(VARIANTS_BY_LABEL["wrong"], FakeSession()), "reference")
    with pytest.raises(ParityError, match="the reference is wrong, nothing was timed"):
        find_truth([wrong], images, tiny_bundle, None)
    absent = BenchmarkCase(Candidate(VARIANTS_BY_LABEL["absent"], None, "no such device"), "variant")
    with pytest.raises(BackendError, match=r"nothing can run on this CPU \(absent: no such device\)"):
        find_truth([absent], images, tiny_bundle, None)
