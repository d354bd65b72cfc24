"""Who shall serve: parity, then budgets, then speed, and a reason for each that does not."""

from __future__ import annotations

import dataclasses
import math

import pytest

from tumorseg_benchmarks.latency.choice import LOST, UNFIT, WON, Budgets, Choice, choose
from tumorseg_benchmarks.latency.cold_start import ColdStart
from tumorseg_benchmarks.latency.latency import Sample
from tumorseg_benchmarks.latency.ranking import ranking_entries
from tumorseg_benchmarks.latency.rows import BenchRow, fill
from tumorseg_benchmarks.variants.third_party_baselines import THIRD_PARTY_BASELINES
from tumorseg_benchmarks.variants.variants import VARIANTS, Variant
from tumorseg_runtime.bundle.bundle import Artefact, Bundle
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.compare import ImageParity, ParityReport

BY_NAME = {variant.name: variant for variant in (*VARIANTS, *THIRD_PARTY_BASELINES)}
PYTORCH, FP32 = BY_NAME["module-fp32-pytorch-cpu"], BY_NAME["onnx-fp32-onnxruntime-cpu"]
FP16, NCNN = BY_NAME["onnx-fp16-onnxruntime-cpu"], BY_NAME["ncnn-fp32-ncnn-cpu"]
ROUNDS = 9


def timed(
    variant: Variant, ms: float, role: str = "variant", batch: int = 1, rounds: int = ROUNDS
) -> BenchRow:
    """A measured row that took `ms` in each round."""
    stages = {"decode": 0.0, "preprocess": 0.0, "infer": ms, "postprocess": 0.0}
    samples = [Sample(number, 0, stages) for number in range(rounds)]
    return fill(BenchRow(variant, variant.label, role, batch, "measured"), samples, samples)


def refused(variant: Variant) -> BenchRow:
    return BenchRow(variant, variant.label, "variant", 1, "refused: parity", "a: 9 pixels flipped")


def of(choices: list[Choice]) -> dict[str, tuple[str, str]]:
    return {one.name: (one.status, one.reason) for one in choices}


def cold_start(peak_mb: float, gpu_mb: float | None = None) -> ColdStart:
    return ColdStart(1.0, 1.0, 1.0, 1.0, peak_mb, gpu_mb)


def test_the_lowest_median_wins_and_the_others_say_how_much_longer_they_take(tiny_bundle: Bundle) -> None:
    rows = [
        timed(PYTORCH, 1.0, "reference"), timed(FP32, 10.0), timed(FP16, 20.0), timed(FP32, 1.0, "control"),
        timed(NCNN, 1.0, batch=4), timed(THIRD_PARTY_BASELINES[2], 1.0),
    ]  # fmt: skip
    choices = choose(rows, tiny_bundle, {}, Budgets())
    assert [one.name for one in choices] == [FP32.name, FP16.name]
    assert of(choices) == {
        FP32.name: (WON, "the lowest median of those that pass parity: 10 ms"),
        FP16.name: (LOST, "2.000 times (2.000-2.000) as long as ONNX FP32, ONNX Runtime CPU"),
    }
    files = {one.precision: one.files for one in tiny_bundle.artefacts}
    assert choices[0].size_mb == sum(tiny_bundle.files[file].bytes for file in files["fp32"]) / 1e6


def test_equals_are_called_equal_and_other_rounds_are_compared_by_medians(tiny_bundle: Bundle) -> None:
    found = of(choose([timed(FP32, 10.0), timed(FP16, 10.01)], tiny_bundle, {}, Budgets()))
    assert found[FP16.name][0] == LOST
    assert found[FP16.name][1].startswith("no difference from ONNX FP32, ONNX Runtime CPU was found (1.001")
    found = of(choose([timed(FP32, 10.0), timed(FP16, 25.0, rounds=8)], tiny_bundle, {}, Budgets()))
    assert found[FP16.name][1] == "2.5 times as long as ONNX FP32, ONNX Runtime CPU"


def test_a_form_that_another_form_serves_has_its_files_size(tiny_bundle: Bundle) -> None:
    """MNN's exact backend opens the file of the usual one."""
    own = Artefact("model.onnx", "mnn", "fp32", None, {}, ())
    bundle = dataclasses.replace(tiny_bundle, artefacts=(own,))
    (one,) = choose([timed(BY_NAME["mnn-exact-fp32-mnn-exact-cpu"], 1.0)], bundle, {}, Budgets())
    assert one.size_mb == tiny_bundle.files["model.onnx"].bytes / 1e6


def test_what_breaks_parity_never_wins(tiny_bundle: Bundle) -> None:
    found = of(choose([timed(FP32, 10.0), refused(FP16)], tiny_bundle, {}, Budgets()))
    assert found[FP32.name][0] == WON
    assert found[FP16.name] == (UNFIT, "refused: parity: a: 9 pixels flipped")


def test_every_budget_is_kept_and_what_is_not_known_keeps_none(tiny_bundle: Bundle) -> None:
    rows = [timed(FP32, 10.0), timed(FP16, 20.0)]
    cold_starts = {FP32.name: cold_start(900.0), FP16.name: cold_start(100.0)}
    choices = choose(rows, tiny_bundle, cold_starts, Budgets(memory_mb=500.0))
    assert [(one.name, one.status) for one in choices] == [(FP16.name, WON), (FP32.name, UNFIT)]
    assert choices[0].reason == (
        "the lowest median of those that pass parity within the budgets (memory 500): 20 ms"
    )
    assert choices[1].reason == "peak memory 900 MB, expected at most 500"
    cold_starts = {FP32.name: cold_start(100.0, 900.0)}
    found = of(choose(rows, tiny_bundle, cold_starts, Budgets(5.0, 500.0)))
    assert (
        found[FP32.name][1] == "latency 10 ms, expected at most 5; peak memory 900 MB, expected at most 500"
    )
    assert found[FP16.name][1].endswith("peak memory is not known, expected at most 500 MB")
    found = of(choose([*rows, timed(NCNN, 1.0)], tiny_bundle, {}, Budgets(size_mb=1e-3)))
    assert {status for status, _ in found.values()} == {UNFIT}
    assert found[NCNN.name][1] == "size is not known, expected at most 0.001 MB"


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_budget_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(InputError, match=r"the budget latency_ms is .*, expected a positive number"):
        Budgets(latency_ms=value)


def erring(row: BenchRow, error: float) -> BenchRow:
    """The row with this largest error, in standard deviations."""
    image = ImageParity("a", 0, error, error, error, 64, 0, 1.0, ())
    variant = row.variant
    report = ParityReport(
        variant.label, variant.engine, variant.device, variant.precision, {}, BUDGETS["fp16"], 1.0, (image,)
    )
    return dataclasses.replace(row, parity=report)


NOISE = (0.1, -0.1, 0.07, -0.07, 0.12, -0.11, 0.03, -0.04, 0.0)


def noisy(variant: Variant, ms: float) -> BenchRow:
    """Rounds up to 12 % around `ms`."""
    samples = [
        Sample(n, 0, {"decode": 0.0, "preprocess": 0.0, "infer": ms * (1 + share), "postprocess": 0.0})
        for n, share in enumerate(NOISE)
    ]
    return fill(BenchRow(variant, variant.label, "variant", 1, "measured"), samples, samples)


def test_where_no_difference_was_found_the_more_exact_one_wins(tiny_bundle: Bundle) -> None:
    exact, rough = erring(noisy(FP32, 10.05), 1e-5), erring(timed(FP16, 10.0), 1e-2)
    first, second = choose([rough, exact], tiny_bundle, {}, Budgets())
    assert (first.name, first.status) == (FP32.name, WON)
    assert "no difference from" in first.reason
    assert "it errs less" in first.reason
    assert second.status == LOST
    assert second.reason.endswith("it errs more")
    assert [one.precision for one in ranking_entries([rough, exact], 1)] == ["fp32", "fp16"]
    clear = erring(timed(FP16, 5.0), 1e-2)
    assert choose([clear, erring(timed(FP32, 10.0), 1e-5)], tiny_bundle, {}, Budgets())[0].name == FP16.name
