"""Conformance networks: one 1x1 convolution each, whose logits are known for every tensor.

What the runtime does around a network is proven with them, through the Segmenter and the backend that serve:

    rgb     bright  4 (r + g + b) - 6.13    warm  8 (r - b) - 2.5
    gray    bright  12 v - 6.13             dark  3.07 - 12 v

in intensities of 0..1; no two logits of 8-bit pixels are equal, and none is 0. In INT8 a convolution that
changes nothing stands before it: the last one is never rounded. The folders `rgb` and `gray` beside this
module hold each as an artefact of every format that a backend opens, but for TensorRT's engines, which are
made for one GPU; deploy forms, which decide, once for each decision rule; and an input guard of two kinds
of images, of which the conformance files are some within and some beyond. They are made by
`python -m tumorseg_export.bundle.conformance_network`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.bundle.bundle import Artefact, Bundle, FileRecord, sha256_of
from tumorseg_runtime.conformance.vector import CONTRACTS
from tumorseg_runtime.core.contract import SIGMOID, SOFTMAX, Contract
from tumorseg_runtime.processing.input_guard import FILE as GUARD

FloatArray = npt.NDArray[np.float64]

FOLDER = Path(__file__).parent
TEMPERATURE = 1.6
# by contract: per class, the factors of the intensities and what is added
LOGITS = {
    "rgb": (((4, 4, 4), -6.13), ((8, 0, -8), -2.5)),
    "gray": (((12,), -6.13), ((-12,), 3.07)),
}
# file, format, precision, file of the weights
_ARTEFACTS = (
    ("model.onnx", "onnx", "fp32", None),
    ("model.fp16.onnx", "onnx", "fp16", None),
    ("model.deploy.onnx", "onnx-deploy", "fp32", None),
    ("model.deploy-gray.onnx", "onnx-deploy-gray", "fp32", None),
    ("model.ncnn.param", "ncnn", "fp32", "model.ncnn.bin"),
    ("model.mnn", "mnn", "fp32", None),
    ("model.xml", "openvino", "fp32", "model.bin"),
    ("model.bf16.xml", "openvino", "bf16", "model.bf16.bin"),
    ("model.int8.onnx", "onnx", "int8", None),
    ("model.int8.xml", "openvino", "int8", "model.int8.bin"),
)


def file_under(rule: str, file: str) -> str:
    """The file of an artefact under a decision rule: deploy forms decide, the others give logits."""
    return file.replace("deploy", f"{rule}-deploy") if rule == SOFTMAX else file


def expected_logits(contract_name: str, tensor: npt.NDArray[np.floating[Any]]) -> FloatArray:
    """What the network of this contract must give: tensor (C, h, w) -> float64 logits (K, h, w)."""
    contract = CONTRACTS[contract_name]
    mean, std = (np.array(values, np.float64)[:, None, None] for values in (contract.mean, contract.std))
    intensities = tensor.astype(np.float64) * std + mean
    return np.stack(
        [
            np.tensordot(np.array(factors, np.float64), intensities, axes=1) + added
            for factors, added in LOGITS[contract_name]
        ]
    )


def conformance_contract(contract_name: str, rule: str = SIGMOID) -> Contract:
    """The contract 'rgb' or 'gray' under a decision rule; softmax stands against a background of 0. Its
    temperature is not 1: it shows where a device's probabilities lack it, and where its masks have it."""
    contract = dataclasses.replace(CONTRACTS[contract_name], temperature=TEMPERATURE)
    return contract if rule == SIGMOID else dataclasses.replace(contract, threshold=None, rule=rule)


def conformance_bundle(contract_name: str, rule: str = SIGMOID) -> Bundle:
    """The network of this contract, 'rgb' or 'gray', as a bundle without golden images, with an input guard.

    Its seals are those of the files as they are here: a damaged file shows by its logits.
    """
    contract, root = conformance_contract(contract_name, rule), FOLDER / contract_name
    made = [one for one in _ARTEFACTS if one[1] != "onnx-deploy-gray" or contract.channels == 3]
    artefacts = tuple(
        Artefact(file_under(rule, file), format, precision, None, {}, (), weights)
        for file, format, precision, weights in made
    )
    names = {GUARD} | {
        file_under(one, name)
        for one in (SIGMOID, SOFTMAX)
        for file, *_, weights in made
        for name in (file, weights)
        if name
    }
    files = {name: FileRecord(sha256_of(root / name), (root / name).stat().st_size) for name in sorted(names)}
    return Bundle(root, f"conformance-{contract_name}", contract, artefacts, (), files, {}, {}, {})
