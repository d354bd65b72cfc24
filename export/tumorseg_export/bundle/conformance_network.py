"""The conformance networks that are shipped with the runtime, made by the targets themselves.

`python -m tumorseg_export.bundle.conformance_network` writes them anew into the runtime's package, where the
formulas stand (`tumorseg_runtime.conformance.network`).
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import torch

from tumorseg_export.checkpoint.context import ExportContext
from tumorseg_export.onnx.export import write_onnx
from tumorseg_export.precision.fp16_graph import Graph
from tumorseg_export.precision.int8_graph import Calibrated, Range, activations_of, to_int8
from tumorseg_export.targets import onnx_int8
from tumorseg_export.targets.onnx_fp16 import fused_graph
from tumorseg_export.targets.registry import TARGETS
from tumorseg_runtime.conformance.files import vectors
from tumorseg_runtime.conformance.network import FOLDER, LOGITS, conformance_contract, file_under
from tumorseg_runtime.conformance.vector import CONTRACTS
from tumorseg_runtime.core.contract import SOFTMAX
from tumorseg_runtime.core.files import write_bytes, write_text
from tumorseg_runtime.parity.reference import Golden
from tumorseg_runtime.processing.input_guard import FILE as GUARD
from tumorseg_runtime.processing.input_guard import STATISTICS, InputGuard, KindOfImage, statistics
from tumorseg_runtime.processing.preprocess import Preprocessor

# all that run on any machine; what takes another's place has its bytes, and what is judged is made below
MADE = tuple(
    name for name, target in TARGETS.items() if target.must_run and not (target.instead_of or target.judged)
)
OF_INT8 = tuple(name for name, target in TARGETS.items() if "onnx-int8" in target.needs)
KINDS_FROM = {"gray.png": 0.6, "network-size-gray.png": 1.8}  # with their limits
IMAGES = ("gray.png", "network-size-gray.png", "1-bit.png")  # what a target proves itself with


def network(contract_name: str) -> torch.nn.Conv2d:
    """The network of one of the conformance contracts, in evaluation mode."""
    contract = CONTRACTS[contract_name]
    factors = np.array([one for one, _ in LOGITS[contract_name]], np.float64)  # (K, C), of intensities
    added = np.array([one for _, one in LOGITS[contract_name]], np.float64)
    conv = torch.nn.Conv2d(contract.channels, len(contract.classes), 1).eval()
    with torch.no_grad():
        conv.weight[:] = torch.from_numpy(factors * np.array(contract.std))[:, :, None, None]
        conv.bias[:] = torch.from_numpy(added + factors @ np.array(contract.mean))  # type: ignore[index]
    return conv.requires_grad_(False)


def identity(channels: int) -> torch.nn.Conv2d:
    """A convolution that changes nothing."""
    conv = torch.nn.Conv2d(channels, channels, 1, bias=False)
    with torch.no_grad():
        conv.weight[:] = torch.eye(channels)[:, :, None, None]
    return conv.requires_grad_(False)


def write_int8(contract_name: str, context: ExportContext, folder: Path) -> None:
    """The file that `onnx-int8` writes, without its search and its images: the last convolution is never
    rounded, so that one before it is, which changes nothing. Ranges are those of a tensor of any image."""
    contract = context.contract
    model = torch.nn.Sequential(identity(contract.channels), network(contract_name)).eval()
    graph = Graph(fused_graph(model, context))
    ends = [
        (end - mean) / std for end in (0, 1) for mean, std in zip(contract.mean, contract.std, strict=True)
    ]
    ranges = dict.fromkeys(activations_of(graph), Range(min(ends), max(ends)))
    calibrated = Calibrated(ranges, dict.fromkeys(ranges, np.zeros(contract.channels)))
    write_onnx(to_int8(graph, frozenset(), calibrated), folder / onnx_int8.FILE, context, precision="int8")


def guard() -> InputGuard:
    """An input guard whose numbers all matter: every statistic, its place, its kind and the colour."""
    frames = {vector.name: vector.frames[0] for vector in vectors() if vector.name in KINDS_FROM}
    count = len(STATISTICS)
    std = tuple(1 + place / 8 for place in range(count))
    whitening = tuple(
        tuple({0: 1.0, 1: 0.5, 2: -0.25}.get(row - column, 0.0) for column in range(count))
        for row in range(count)
    )
    kinds = tuple(
        KindOfImage(
            name, number + 50, tuple(round(float(one), 3) for one in statistics(frames[name])[0]), std,
            whitening, limit,
        )
        for number, (name, limit) in enumerate(KINDS_FROM.items())
    )  # fmt: skip
    return InputGuard("0" * 64, 5.0, kinds)


def write_network(contract_name: str, folder: Path) -> None:
    """Write the artefacts of every format and the guard into the folder, which must be there."""
    write_text(folder / GUARD, guard().to_text())
    contract, model = CONTRACTS[contract_name], network(contract_name)
    preprocess = Preprocessor(contract)
    golden = []
    for vector in vectors():
        if vector.name in IMAGES:
            tensor = preprocess(vector.pixels)
            logits = model(torch.from_numpy(tensor)[None])[0].numpy()
            golden.append(Golden(vector.name, vector.pixels, tensor, logits))
    context = ExportContext(model, contract, {"network": f"conformance {contract_name}"}, tuple(golden))
    softmax = dataclasses.replace(conformance_contract(contract_name, SOFTMAX), temperature=1.0)
    exclusive = dataclasses.replace(context, contract=softmax)  # masks know no temperature
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        write_int8(contract_name, context, scratch)
        write_bytes(folder / onnx_int8.FILE, (scratch / onnx_int8.FILE).read_bytes())
        for target in (*MADE, *OF_INT8):
            if target == "onnx-deploy-gray" and contract.channels == 1:
                continue
            for one in (exclusive, context) if "deploy" in target else (context,):
                for file in TARGETS[target].make(one, scratch).artefact.files:
                    data = (scratch / file).read_bytes()
                    write_bytes(folder / file_under(one.contract.rule, file), data)


if __name__ == "__main__":
    for one in CONTRACTS:
        (FOLDER / one).mkdir(exist_ok=True)
        write_network(one, FOLDER / one)
