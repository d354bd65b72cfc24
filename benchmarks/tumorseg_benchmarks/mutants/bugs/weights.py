"""Bugs of weights and of precision."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper

from tumorseg_benchmarks.mutants.mutant import Edit, Graph, Mutant, edited, exported
from tumorseg_benchmarks.mutants.testbed import BedNetwork
from tumorseg_export.onnx.export import to_onnx

FloatArray = npt.NDArray[np.float32]
LAYER = "decoder.blocks.2.conv1.0.weight"
BLOCK = "decoder.blocks.3"
PAIR = ("encoder.layer1.0.conv2.weight", "encoder.layer1.1.conv2.weight")


def weights(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    """An initializer by name."""
    found: onnx.TensorProto = next(one for one in model.graph.initializer if one.name == name)
    return found


def changed(rule: Callable[[FloatArray], FloatArray], name: str = LAYER) -> Edit:
    """One layer's weights are others."""

    def edit(model: onnx.ModelProto) -> None:
        tensor = weights(model, name)
        values = np.asarray(rule(numpy_helper.to_array(tensor)), np.float32)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))

    return edit


def exchanged(model: onnx.ModelProto) -> None:
    """Two layers of one shape have each other's weights."""
    first, second = (weights(model, name) for name in PAIR)
    values = numpy_helper.to_array(first)
    first.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(second), PAIR[0]))
    second.CopyFrom(numpy_helper.from_array(values, PAIR[1]))


def of_model(change: Callable[[torch.nn.Module], torch.nn.Module | None]) -> Graph:
    """The export of a copy of the network that `change` changed in place, or of what it gives."""

    def graph(network: BedNetwork) -> onnx.ModelProto:
        model = copy.deepcopy(network.model)
        other = change(model)
        return to_onnx(model if other is None else other, network.bundle.contract)

    return graph


def earlier(network: BedNetwork) -> onnx.ModelProto:
    """The weights of another epoch."""
    return to_onnx(network.earlier, network.bundle.contract)


def norms(model: torch.nn.Module) -> list[torch.nn.BatchNorm2d]:
    """All BatchNorms."""
    return [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def train_mode(model: torch.nn.Module) -> None:
    """BatchNorm takes the statistics of the batch, the rest of the network is in evaluation mode."""
    for norm in norms(model):
        norm.track_running_stats = False
        norm.running_mean = norm.running_var = None


class Halved(torch.nn.Module):
    """A network in FP16 throughout behind FP32 input and output, nothing folded, nothing checked."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.half_model = model.half()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.half_model(image.half()).float()
        return logits


def halved(change: Callable[[torch.nn.Module], None]) -> Graph:
    """A plain FP16 export of a network that `change` gave another scale, and in FP32 the same answers."""

    def convert(model: torch.nn.Module) -> torch.nn.Module:
        change(model)
        return Halved(model).eval()

    def graph(network: BedNetwork) -> onnx.ModelProto:
        with warnings.catch_warnings():
            # torch's exporter folds BatchNorm in FP16: a line about the overflow is all that ever tells of it
            warnings.simplefilter("ignore", RuntimeWarning)
            return of_model(convert)(network)

    return graph


def overflowing(model: torch.nn.Module) -> None:
    """A layer's activations beyond 65,504, and the next layer's weights as much smaller: a factor of 2**20
    shared out so that no weight overflows itself. In FP32 the network answers as before."""
    rescale(model, before=2.0**10, within=2.0**10)


def underflowing(exponent: int) -> Callable[[torch.nn.Module], None]:
    """A layer's activations times 2**exponent and the next layer's weights as much larger: below FP16's
    normal numbers fewer bits are left with every step down."""
    return lambda model: rescale(model, before=1.0, within=2.0**exponent)


def _of_block(model: torch.nn.Module, *names: str) -> list[Any]:
    """Convolutions and BatchNorms of one decoder block."""
    return [model.get_submodule(f"{BLOCK}.{name}") for name in names]


def rescale(model: torch.nn.Module, before: float, within: float) -> None:
    """Both factors on the output of the block's first BatchNorm, taken back by its second convolution and
    the BatchNorm behind that: before the first BatchNorm, and within it."""
    conv1, norm1, conv2, norm2 = _of_block(model, "conv1.0", "conv1.1", "conv2.0", "conv2.1")
    with torch.no_grad():
        for tensor in (conv1.weight, norm1.running_mean):
            tensor.mul_(before)
        norm1.weight.mul_(within)
        norm1.bias.mul_(before * within)
        conv2.weight.div_(within)
        norm2.running_mean.mul_(before)
        norm2.weight.div_(before)


def large_variance(model: torch.nn.Module) -> None:
    """A convolution times 1,000, and the statistics of the BatchNorm behind it to match."""
    conv, norm = _of_block(model, "conv1.0", "conv1.1")
    with torch.no_grad():
        norm.running_var.add_(norm.eps)
        conv.weight.mul_(1000)
        norm.running_mean.mul_(1000)
        norm.running_var.mul_(1e6)
        norm.eps = 0.0


def other_epsilon(model: torch.nn.Module) -> None:
    """BatchNorm with the epsilon of another framework."""
    for norm in norms(model):
        norm.eps = 1e-3


def rounded(model: onnx.ModelProto, dtype: torch.dtype) -> None:
    """All weights through another type and back, in a file that says FP32."""
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            through = torch.from_numpy(values.copy()).to(dtype).float().numpy()
            tensor.CopyFrom(numpy_helper.from_array(through, tensor.name))


def in_bfloat16(model: onnx.ModelProto) -> None:
    """8 bits of the mantissa."""
    rounded(model, torch.bfloat16)


def in_float16(model: onnx.ModelProto) -> None:
    """What OpenVINO's converter does to weights unless it is told not to."""
    rounded(model, torch.float16)


def in_8_bits(model: onnx.ModelProto) -> None:
    """Weights in 8 bits with one scale for each layer, nothing calibrated."""
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim == 4:
            scale = np.abs(values).max() / np.float32(127)
            tensor.CopyFrom(numpy_helper.from_array(np.rint(values / scale) * scale, tensor.name))


_WITHIN_FP16 = (
    "It rounds more than these weights need and less than FP16 may: no golden mask moves, and what the "
    "weights account for only the run can say."
)
MUTANTS = (
    Mutant("stale weights of another epoch", "weights", exported(earlier)),
    Mutant("two layers' weights exchanged", "weights", edited(exchanged)),
    Mutant("one layer times 1.01", "weights", edited(changed(lambda w: w * np.float32(1.01)))),
    Mutant("kernel's height and width exchanged", "weights", edited(changed(lambda w: w.swapaxes(2, 3)))),
    Mutant(
        "one channel of a layer lost",
        "weights",
        edited(changed(lambda w: w * (np.arange(len(w)) > 0)[:, None, None, None])),
    ),
    Mutant("BatchNorm in training mode", "weights", exported(of_model(train_mode))),
    Mutant("FP16 overflow in one layer", "precision", exported(halved(overflowing), "fp16")),
    Mutant("FP16 rounding of a sensitive layer", "precision", exported(halved(underflowing(-17)), "fp16")),
    Mutant("FP16 before folding: variance overflows", "precision", exported(halved(large_variance), "fp16")),
    Mutant("BatchNorm with epsilon 1e-3", "weights", exported(of_model(other_epsilon)), late=True),
    Mutant("weights rounded to bfloat16, said to be FP32", "precision", edited(in_bfloat16), late=True),
    Mutant("weights rounded to FP16, said to be FP32", "precision", edited(in_float16), late=True),
    Mutant("weights in 8 bits, one scale for a layer", "precision", edited(in_8_bits), late=True),
    *(
        Mutant(
            f"FP16 rounding of a layer's activations times 2**{exponent}",
            "precision",
            exported(halved(underflowing(exponent)), "fp16"),
            late=True,
            beyond=_WITHIN_FP16 if exponent > -16 else "",
        )
        for exponent in (-16, -13, -10)
    ),
)
