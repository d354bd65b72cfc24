"""FP16 on a CPU: does a file err by more than the rounding of its weights explains?

The budget of FP16 has to be wide: right networks err by 0.002 to 0.2 standard deviations, and a bug that errs
as much as another network's rounding fits into it. Here the network is its own measure: BatchNorm folded and
every weight rounded to FP16, computed by PyTorch in FP32. ONNX Runtime computes FP16 files in FP32 on a CPU,
so a right file lies near that network, whatever the network is. A GPU rounds sums as well, and is not asked.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.parity.references import ReferenceSet
from tumorseg_benchmarks.variants.variants import Variant
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.session import checked_infer
from tumorseg_runtime.parity.budget import BUDGETS, Budget

if TYPE_CHECKING:
    import torch

FloatArray = npt.NDArray[np.float32]

NAME = "golden, weights in FP16"
PRECISION = "fp16"
TIMES = 2.0  # limit of a file's distance from the rounded network, in errors of that network (docs/parity.md)


def is_asked(variant: Variant) -> bool:
    """Whether the rule holds for a variant: ONNX Runtime's FP16 on a CPU."""
    return (variant.engine, variant.device, variant.precision) == ("onnxruntime", "cpu", PRECISION)


def rounded_reference(model: torch.nn.Module, golden: ReferenceSet, contract: Contract) -> ReferenceSet:
    """The golden images with what the network says whose weights are rounded to FP16.

    model: FP32, in evaluation mode; it stays as it is. golden: with the tensors that PyTorch was given.
    Raises OutputError where the rounded network gives values that are not finite.
    """
    from tumorseg_benchmarks.variants.pytorch import PyTorchSession

    session = PyTorchSession(rounded(model, contract.channels), "cpu")
    assert golden.tensor is not None  # the bundle holds them
    logits = tuple(
        checked_infer(session, golden.tensor(index)[None], contract)[0] for index in range(len(golden.images))
    )
    return dataclasses.replace(
        golden, name=NAME, logits=logits, scale=golden.unit, budgets={PRECISION: budget_of(golden, logits)}
    )


def rounded(model: torch.nn.Module, channels: int) -> torch.nn.Module:
    """A copy with BatchNorm folded and every parameter rounded to FP16, still of FP32 tensors.

    What FP16 cannot hold stays as it is: the exporter leaves such a layer in FP32.
    """
    import torch

    from tumorseg_export.onnx.fuse import fuse

    copy = fuse(model, channels)
    with torch.no_grad():
        for parameter in copy.parameters():
            half = parameter.half().float()
            parameter.copy_(torch.where(half.isfinite(), half, parameter))
    return copy


def budget_of(golden: ReferenceSet, rounded: tuple[FloatArray, ...]) -> Budget:
    """At most `TIMES` the errors that rounding the weights makes here, and never more than FP16 may err.

    Decisions are not asked: the rounded network is no truth, and two right ones may flip different pixels.
    They are held against PyTorch itself, in the other sets.
    """
    usual, least = BUDGETS[PRECISION], BUDGETS["fp32"]
    pairs = zip(golden.logits, rounded, strict=True)
    errors = [np.abs(ours - theirs) / golden.unit for ours, theirs in pairs]
    largest = TIMES * max(float(error.max()) for error in errors)
    mean = TIMES * max(float(error.mean()) for error in errors)
    assert usual.mean_error is not None
    assert least.mean_error is not None
    return Budget(
        relative_error=min(usual.relative_error, max(least.relative_error, largest)),
        mean_error=min(usual.mean_error, max(least.mean_error, mean)),
        free_pixels=0,
    )
