"""The conformance networks of the runtime are what the targets make of the formulas today."""

from __future__ import annotations

import dataclasses
import importlib.util
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tumorseg_export.bundle.conformance_network import network, write_network
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.conformance.files import vectors
from tumorseg_runtime.conformance.network import conformance_bundle, expected_logits
from tumorseg_runtime.conformance.vector import CONTRACTS
from tumorseg_runtime.core.session import checked_infer
from tumorseg_runtime.processing.preprocess import Preprocessor

BACKENDS = {"ncnn": "ncnn", "mnn": "MNN", "openvino": "openvino"}
TENSOR = {name: Preprocessor(one)(vectors()[0].pixels) for name, one in CONTRACTS.items()}


@pytest.mark.parametrize("name", CONTRACTS)
def test_pytorch_gives_the_formulas(name: str) -> None:
    logits = network(name)(torch.from_numpy(TENSOR[name])[None])[0].numpy()
    np.testing.assert_allclose(logits, expected_logits(name, TENSOR[name]), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTRACTS)
def test_making_them_again_gives_the_same(name: str, tmp_path: Path) -> None:
    if missing := [one for one in (*BACKENDS.values(), "pnnx") if importlib.util.find_spec(one) is None]:
        pytest.skip(f"{', '.join(missing)}: not installed")
    shipped = conformance_bundle(name)
    write_network(name, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(shipped.files)
    if onnx.load(shipped.root / "model.onnx").producer_version == version("torch"):
        for file in shipped.files:
            if file.endswith(".onnx"):
                assert (tmp_path / file).read_bytes() == (shipped.root / file).read_bytes(), file
    made = dataclasses.replace(shipped, root=tmp_path)
    for backend in BACKENDS:
        old, new = (
            checked_infer(open_session(one, backend=backend), TENSOR[name][None], shipped.contract)
            for one in (shipped, made)
        )
        np.testing.assert_array_equal(old, new)
