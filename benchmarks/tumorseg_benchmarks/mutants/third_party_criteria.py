"""What others accept, each criterion written anew from its public description and applied as its tool does.

All of them hold the network in PyTorch against the exported file, on an input that is already a tensor: none
looks at a file's bytes or at a mask. Where a tool compares two other things by default
(Polygraphy: two runtimes of one file), it is given PyTorch here, which can only help it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.mutants.testbed import CONTRACT, BedNetwork
from tumorseg_runtime.core.errors import TumorsegError

FloatArray = npt.NDArray[np.float32]
Runner = Callable[[FloatArray], FloatArray]  # float32 (N, C, H, W) -> logits


@dataclasses.dataclass(frozen=True)
class Criterion:
    """inputs(network, batch): what the tool runs, float32 (N, C, H, W); `batch` None for its own default.

    refuses(reference, logits): why it is refused, empty where it is accepted. source: its description.
    """

    name: str
    source: str
    inputs: Callable[[BedNetwork, int | None], FloatArray]
    refuses: Callable[[FloatArray, FloatArray], str]


def refusal(criterion: Criterion, network: BedNetwork, run: Runner, batch: int | None = None) -> str:
    """Why a tool refuses what `run` computes; empty where it accepts it."""
    inputs = criterion.inputs(network, batch)
    try:
        logits = run(inputs)
    except TumorsegError as error:
        return f"does not run: {error}"
    reference = network.torch_logits(inputs)
    if logits.shape != reference.shape:
        return f"gives {logits.shape}, expected {reference.shape}"
    with np.errstate(invalid="ignore", divide="ignore"):
        return criterion.refuses(reference, logits)


def noise(default_batch: int, seed: int) -> Callable[[BedNetwork, int | None], FloatArray]:
    """Evenly drawn from 0 to 1, of the network's size."""

    def inputs(network: BedNetwork, batch: int | None) -> FloatArray:
        shape = (batch or default_batch, CONTRACT.channels, CONTRACT.height, CONTRACT.width)
        return np.random.default_rng(seed).uniform(0, 1, shape).astype(np.float32)

    return inputs


def images(network: BedNetwork, batch: int | None) -> FloatArray:
    """The user's own data, as the tool's data loader gives it: preprocessed golden images, all in turn."""
    return np.stack([item.tensor for item in network.golden[:batch]])


def allclose(atol: float) -> Callable[[FloatArray, FloatArray], str]:
    """|a - b| <= atol + 1e-5 * |b| for every element: numpy's allclose with its own rtol."""

    def refuses(reference: FloatArray, logits: FloatArray) -> str:
        if np.allclose(reference, logits, atol=atol):
            return ""
        return f"largest difference {np.abs(reference - logits).max():.3g}, atol {atol:g}"

    return refuses


def elementwise(reference: FloatArray, logits: FloatArray, tolerance: float = 1e-5) -> str:
    """Refused where one element exceeds both the absolute and the relative tolerance, or is NaN."""
    difference = np.abs(reference.astype(np.float64) - logits)
    share = difference / np.abs(np.where(logits == 0, np.finfo(np.float64).eps, logits.astype(np.float64)))
    wrong = int(np.count_nonzero(~(difference <= tolerance) & ~(share <= tolerance)))
    return f"{wrong} elements beyond {tolerance:g}, absolute and relative" if wrong else ""


def mean_absolute(reference: FloatArray, logits: FloatArray, tolerance: float = 1e-3) -> str:
    """Refused where the mean absolute difference exceeds the tolerance."""
    mean = float(np.abs(reference - logits).mean(dtype=np.float64))
    return "" if mean <= tolerance else f"mean difference {mean:.3g}, at most {tolerance:g}"


def not_finite(reference: FloatArray, logits: FloatArray) -> str:
    """Differences are recorded; only NaN, infinity and a file that does not run are refused."""
    broken = int(np.count_nonzero(~np.isfinite(logits)))
    return f"{broken} logits are not finite" if broken else ""


CRITERIA = (
    Criterion(
        "Optimum",
        "optimum/exporters/onnx/convert.py, validate_model_outputs: numpy.allclose with the configuration's "
        "ATOL_FOR_VALIDATION, 1e-5 unless it says otherwise, on two dummy images drawn from 0 to 1 "
        "(utils/input_generators.py). The command line only warns of a breach; here it counts as one.",
        noise(2, 1),
        allclose(1e-5),
    ),
    Criterion(
        "Optimum, 1e-3",
        "the same with the tolerance of its configuration for ResNet (exporters/onnx/model_configs.py).",
        noise(2, 1),
        allclose(1e-3),
    ),
    Criterion(
        "Polygraphy",
        "Polygraphy, CompareFunc.simple and DataLoader in the documentation of TensorRT: rtol and atol 1e-5, "
        "'elemwise', one input drawn from 0 to 1, dynamic axes at 1.",
        noise(1, 2),
        elementwise,
    ),
    Criterion(
        "Anomalib",
        "mean absolute difference of at most 1e-3 on one image of noise, as this project noted it in "
        "November 2026; the export mixin of its version 2.6 (models/components/base/export_mixin) compares "
        "nothing.",
        noise(1, 3),
        mean_absolute,
    ),
    Criterion(
        "Model Navigator",
        "model_navigator/commands/correctness/correctness_script.py: the differences on the user's samples "
        "are recorded; NaN, infinity and a failed run are refused. verify_func is the user's, and "
        "off unless given.",
        images,
        not_finite,
    ),
)
