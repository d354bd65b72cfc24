"""Stages of the evidence that run on the null GPU, in a process of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def kernel_stage() -> dict[str, Any]:
    """The record of the stage `kernel`, dry: fewer images, small pieces of memory."""
    from tumorseg_benchmarks.gpu_evidence import kernel
    from tumorseg_benchmarks.gpu_evidence.stage import Options, run_stage

    return run_stage("kernel", "", kernel.run, Options(True, None, Path()), lambda line: None)


def providers_stage() -> dict[str, Any]:
    """The record of the stage `onnxruntime` as it is on a machine with a GPU, whose kernels do nothing."""
    from tumorseg_benchmarks.gpu_evidence import providers
    from tumorseg_benchmarks.gpu_evidence.stage import Options, run_stage

    return run_stage("onnxruntime", "", providers.run, Options(False, None, Path()), lambda line: None)
