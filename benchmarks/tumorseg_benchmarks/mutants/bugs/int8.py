"""Bugs of INT8: scales, zero points, ranges and codes of a file with QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from tumorseg_benchmarks.mutants.mutant import Apply, Device, Mutant, resealed
from tumorseg_benchmarks.mutants.testbed import BedNetwork
from tumorseg_export.targets.onnx_int8 import FILE
from tumorseg_runtime.bundle.bundle import Artefact

Values = npt.NDArray[np.generic]
Fits = Callable[[str, Values], bool]
LEVELS, FEW_LEVELS = 127, 7


def rounded(edit: Callable[[onnx.ModelProto], None]) -> Apply:
    """A bug in the INT8 file, sealed alone."""

    @contextlib.contextmanager
    def apply(network: BedNetwork, folder: Path) -> Iterator[Device]:
        model = onnx.load_from_string(network.int8)
        edit(model)
        artefact = Artefact(FILE, "onnx", "int8", None, {}, ())
        yield Device(resealed(network.bundle, artefact, model, folder), "int8")

    return apply


def initializers(fits: Fits, change: Callable[[Values], Values]) -> Callable[[onnx.ModelProto], None]:
    """Other values of all the numbers that fit, of the same type."""

    def edit(model: onnx.ModelProto) -> None:
        chosen = [one for one in model.graph.initializer if fits(one.name, numpy_helper.to_array(one))]
        assert chosen, "the file has no such numbers"
        for tensor in chosen:
            values = numpy_helper.to_array(tensor)
            other = np.ascontiguousarray(change(values)).astype(values.dtype)
            tensor.CopyFrom(numpy_helper.from_array(other, tensor.name))

    return edit


def of_activations(ending: str) -> Fits:
    """Of whole tensors."""
    return lambda name, values: name.endswith(ending) and values.ndim == 0


def of_weights(name: str, values: Values) -> bool:
    """One scale for each channel."""
    return name.endswith("_weight_scale") and values.size > 1


def codes(name: str, values: Values) -> bool:
    """Weights."""
    return values.dtype == np.int8 and values.ndim == 4


def biases(name: str, values: Values) -> bool:
    """Sums before the first product."""
    return values.dtype == np.int32 and name.endswith("_bias") and bool(values.any())


def to_few(values: Values) -> Values:
    """Weights in 4 bits."""
    few = np.rint(values.astype(np.float64) * FEW_LEVELS / LEVELS)
    return np.asarray(np.rint(few * LEVELS / FEW_LEVELS))


MUTANTS = tuple(
    Mutant(name, "int8", rounded(initializers(fits, change)))
    for name, fits, change in (
        ("INT8: zero points of activations lost", of_activations("_zero"), lambda one: one * 0),
        ("INT8: activations cut to a quarter", of_activations("_scale"), lambda one: one / 4),
        ("INT8: activations in 4 bits", of_activations("_scale"), lambda one: one * 16),
        ("INT8: scales of the channels reversed", of_weights, lambda one: one[::-1]),
        ("INT8: one scale for all channels", of_weights, lambda one: np.full_like(one, one.max())),
        ("INT8: weights read as unsigned", codes, lambda one: np.abs(one.astype(np.int64)).clip(0, 127)),
        ("INT8: weights in 4 bits", codes, to_few),
        ("INT8: kernel's height and width exchanged", codes, lambda one: one.swapaxes(2, 3)),
        ("INT8: biases lost", biases, lambda one: one * 0),
    )
)
