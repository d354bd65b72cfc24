"""The GPU's peaks with the CPU in its place, and the rows that they are set against."""

from __future__ import annotations

import pytest
import torch

from tumorseg_benchmarks.latency.gpu_roofline import measure_gpu_peaks
from tumorseg_benchmarks.latency.roofline import Bound, Peak, Work
from tumorseg_benchmarks.reports.summaries import bound_rows, peak_line


def test_a_product_of_each_precision_and_a_copy_are_measured() -> None:
    peaks = measure_gpu_peaks("cpu", (32, 64), 2**16)
    assert [peak.precision for peak in peaks] == ["fp32", "fp16"]
    for peak in peaks:
        assert peak.flops > 0
        assert peak.bandwidth > 0
        assert peak.best.startswith(f"PyTorch {peak.precision} ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_there_is_none() -> None:
    assert measure_gpu_peaks() == []


def test_a_gpus_rows_are_set_against_the_peak_of_their_precision_by_its_own_clock() -> None:
    def row(device: str, precision: str, **medians: float) -> dict[str, object]:
        return {
            "status": "measured", "batch": 1, "threads": 2, "role": "variant",
            "variant": {"device": device, "precision": precision},
            "stages": {name: {"median": ms} for name, ms in medians.items()},
        }  # fmt: skip

    half = row("cuda", "fp16", infer=9.0, compute=2.0)
    rows = [half, row("cuda", "fp32", infer=9.0), row("cpu", "fp32", infer=9.0)]
    work = {"flop": 1e9, "moved": 2e6, "weights": 0.0}
    bench = {"work": work, "plan": {"batches": [1]}, "rows": rows}
    peak = Peak(1e12, 1e9, "a product", 0, "cuda", "fp16")
    ((found, bound, share),) = bound_rows(bench, peak)
    assert found is half
    assert bound == Bound(1.0, "compute")  # 2 MB as halves are 1 MB: 1 ms, as the product's
    assert share == 0.5
    assert Bound.of(Work(**work), Peak(1e12, 1e9, "", 0, "cuda"), 1) == Bound(2.0, "memory")
    assert peak_line(peak).startswith("GPU, fp16: 1000.0 GFLOP/s (a product)")
