"""The mutants that were written after the budgets had been frozen and all others had been tried."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper

from tumorseg_benchmarks.mutants.graph import attribute, of_type
from tumorseg_benchmarks.mutants.mutant import Device, Mutant, edited, exported, patched, resealed
from tumorseg_benchmarks.mutants.postprocess import decided_by
from tumorseg_benchmarks.mutants.preprocessing import decoded_by
from tumorseg_benchmarks.mutants.testbed import DEEPLAB, BedNetwork
from tumorseg_benchmarks.mutants.weights import halved, norms, of_model, underflowing
from tumorseg_runtime.backends.onnxruntime import OnnxRuntimeSession
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.processing.postprocess import masks_from_logits, probabilities
from tumorseg_runtime.processing.preprocess import Preprocessor

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]
QUALITY = 90  # of the JPEG that a camera's link makes

_normalise, _infer = Preprocessor.normalise, OnnxRuntimeSession.infer  # before anything is broken


def dilation_ignored(model: onnx.ModelProto) -> None:
    """Dilated convolutions become dense ones of the same size."""
    for node in of_type(model, "Conv"):
        sizes = {one.name: list(one.ints) for one in node.attribute}
        if sizes["dilations"] != [1, 1] and sizes["kernel_shape"] == [3, 3]:
            attribute(node, "dilations", [1, 1])
            attribute(node, "pads", [1, 1, 1, 1])


def average_pool(model: onnx.ModelProto) -> None:
    """The stem's pool takes the mean in place of the maximum."""
    node = of_type(model, "MaxPool")[0]
    node.op_type = "AveragePool"
    for one in [one for one in node.attribute if one.name in ("storage_order", "dilations")]:
        node.attribute.remove(one)


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


def taken_for_nchw(self: Preprocessor, resized: UInt8Array, name: str = "image") -> FloatArray:
    """The values of (H, W, C), read as (C, H, W)."""
    tensor = _normalise(self, resized, name)
    return np.ascontiguousarray(tensor.transpose(1, 2, 0)).reshape(tensor.shape)


def recompressed(data: bytes, pixels: UInt8Array) -> UInt8Array:
    """Through a JPEG on the way."""
    stored = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    again = cv2.imdecode(stored, cv2.IMREAD_UNCHANGED)
    assert again is not None
    return np.asarray(again, np.uint8)


def palette_indices(data: bytes, pixels: UInt8Array) -> UInt8Array:
    """A palette's indices for gray values."""
    import io

    from PIL import Image

    image = Image.open(io.BytesIO(data)) if data.startswith(b"\x89PNG") else None
    return np.asarray(image) if image is not None and image.mode == "P" else pixels


def probabilities_resized(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """The sigmoid before the resize, not after it."""
    small = probabilities(logits, *logits.shape[1:])
    resized = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in small]
    return np.stack(resized) >= np.float32(contract.threshold)


def largest_only(logits: FloatArray, contract: Contract, height: int, width: int) -> BoolArray:
    """All lesions but the largest are taken for noise."""
    masks = masks_from_logits(logits, contract, height, width)
    for mask in masks:
        count, components, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        if count > 1:
            mask &= components == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return masks


@contextlib.contextmanager
def one_call_behind(network: BedNetwork, folder: Path) -> Iterator[Device]:
    """Two output buffers in turn, and the wrong one is read."""
    before: list[FloatArray] = []

    def infer(self: OnnxRuntimeSession, batch: FloatArray) -> FloatArray:
        now = _infer(self, batch)
        last = before.pop() if before else now
        before.append(now)
        return last if last.shape == now.shape else now

    with mock.patch("tumorseg_runtime.backends.onnxruntime.OnnxRuntimeSession.infer", infer):
        yield Device(network.bundle, file_changed=False)


@contextlib.contextmanager
def other_threshold(network: BedNetwork, folder: Path) -> Iterator[Device]:
    """The bundle carries the threshold of another run."""
    artefact = network.bundle.artefact("onnx", "fp32")
    model = onnx.load(network.bundle.root / artefact.file)
    contract = dataclasses.replace(network.bundle.contract, threshold=0.4)
    other = dataclasses.replace(network.bundle, contract=contract)
    yield Device(resealed(other, artefact, model, folder), file_changed=False)


MUTANTS = tuple(
    dataclasses.replace(mutant, late=True)
    for mutant in (
        Mutant("dilation ignored", "graph", edited(dilation_ignored), DEEPLAB),
        Mutant("average in place of max pool", "graph", edited(average_pool)),
        Mutant("BatchNorm with epsilon 1e-3", "weights", exported(of_model(other_epsilon))),
        Mutant("weights rounded to bfloat16, said to be FP32", "precision", edited(in_bfloat16)),
        Mutant("weights rounded to FP16, said to be FP32", "precision", edited(in_float16)),
        Mutant("weights in 8 bits, one scale for a layer", "precision", edited(in_8_bits)),
        *(
            Mutant(
                f"FP16 rounding of a layer's activations times 2**{exponent}",
                "precision",
                exported(halved(underflowing(exponent)), "fp16"),
            )
            for exponent in (-16, -13, -10)
        ),
        Mutant(
            "NHWC taken for NCHW",
            "preprocessing",
            patched(("tumorseg_runtime.processing.preprocess.Preprocessor.normalise", taken_for_nchw)),
        ),
        Mutant("frames recompressed as JPEG", "preprocessing", decoded_by(recompressed)),
        Mutant("palette's indices for its colours", "preprocessing", decoded_by(palette_indices)),
        Mutant("probabilities resized in place of logits", "decisions", decided_by(probabilities_resized)),
        Mutant("only the largest lesion kept", "decisions", decided_by(largest_only)),
        Mutant("logits of the call before", "decisions", one_call_behind),
        Mutant("threshold of another run", "files", other_threshold),
    )
)
