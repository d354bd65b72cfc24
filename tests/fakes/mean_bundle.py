"""A sealed bundle of the fake TensorRT's network: its logit is the mean of the channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tumorseg_runtime.bundle.bundle import GOLDEN_FOLDER, INDEX, Artefact, Bundle, FileRecord, sha256_of
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.images.read import write_png
from tumorseg_runtime.processing.preprocess import Preprocessor


def make_mean_bundle(root: Path) -> Bundle:
    """Three golden images, and a graph for TensorRT that nobody else could read."""
    contract = Contract(height=64, width=64)
    (root / GOLDEN_FOLDER).mkdir(parents=True)
    random = np.random.default_rng(4)
    names = [f"noise-{n}" for n in range(3)]
    for name in names:
        pixels = random.integers(0, 256, (70, 80), np.uint8)
        tensor = Preprocessor(contract)(pixels)
        write_png(root / GOLDEN_FOLDER / f"{name}.png", pixels)
        np.savez(
            root / GOLDEN_FOLDER / f"{name}.npz", tensor=tensor, logits=tensor.mean(axis=0, keepdims=True)
        )
    forms = {
        "onnx": "model.fp16.onnx",
        "onnx-deploy": "model.deploy.onnx",
        "onnx-deploy-gray": "model.deploy-gray.onnx",
    }
    for form, file in forms.items():
        (root / file).write_bytes(f"{form.removeprefix('onnx-')}, of the mean".encode())
    files = {
        path.relative_to(root).as_posix(): FileRecord(sha256_of(path), path.stat().st_size)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
    artefacts = tuple(
        Artefact(file, form, "fp16" if form == "onnx" else "fp32", None, {}, ())
        for form, file in forms.items()
    )
    bundle = Bundle(root, "mean", contract, artefacts, tuple(names), files, {}, {}, {})
    (root / INDEX).write_text(bundle.to_index())
    return Bundle.open(root)
