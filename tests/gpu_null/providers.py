"""Programs with the real onnxruntime-gpu on the null GPU, and stubs of TensorRT beside it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from tumorseg_export.references.golden_images import write_golden
from tumorseg_export.targets.registry import Target
from tumorseg_export.targets.validate_parity import validate_parity
from tumorseg_runtime.backends.onnxruntime import open_file, versions_of, why_unavailable
from tumorseg_runtime.bundle.bundle import Artefact, Bundle
from tumorseg_runtime.conformance.network import conformance_bundle, expected_logits
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.device.tensorrt_provider import engine_options
from tumorseg_runtime.parity.reference import Golden
from tumorseg_runtime.processing.preprocess import Preprocessor


def reasons(devices: list[str]) -> list[str | None]:
    """Why each device is not available."""
    return [why_unavailable(device) for device in devices]


def opened(path: Path, device: str) -> dict[str, str]:
    """The CUDA provider's options of an opened file, or what was said as 'error'."""
    try:
        session = open_file(path, device, None)
    except BackendError as error:
        return {"error": str(error)}
    options: dict[str, str] = session.get_provider_options()["CUDAExecutionProvider"]
    return options


def prove(folder: Path) -> None:
    """Validate a copy of the conformance network on CUDA, whose kernels do nothing here."""
    whole = conformance_bundle("rgb")
    contract, artefact = whole.contract, whole.artefact("onnx", "fp32")
    for name in (artefact.file, "guard.json"):
        (folder / name).write_bytes((whole.root / name).read_bytes())
    pixels = np.random.default_rng(0).integers(0, 256, (contract.height, contract.width), np.uint8)
    tensor = Preprocessor(contract)(pixels)
    logits = expected_logits("rgb", tensor).astype(np.float32)
    write_golden([Golden("noise", pixels, tensor, logits)], folder)
    bundle = dataclasses.replace(whole, root=folder, artefacts=(artefact,), golden=("noise",))
    validate_parity(bundle, artefact, Target("unused", (("onnxruntime", "cuda"),)))


def engines(graph: Path, folder: Path) -> list[dict[str, str]]:
    """Options of the TensorRT provider without a device folder, with one, and for another device."""
    artefact = Artefact(graph.name, "onnx", "fp32", None, {}, ())
    bundle = Bundle(graph.parent, "small", Contract(height=64, width=96), (artefact,), (), {}, {}, {}, {})
    assert why_unavailable("tensorrt") is None
    versions = versions_of("tensorrt")
    return [
        engine_options(device, artefact, bundle, 3, versions, place)
        for device, place in (("tensorrt", None), ("tensorrt", folder), ("cuda", folder))
    ]
