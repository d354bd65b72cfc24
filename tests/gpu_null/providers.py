"""Programs with the real onnxruntime-gpu on the null GPU, and stubs of TensorRT beside it."""

from __future__ import annotations

from pathlib import Path

from tumorseg_runtime.backends.onnxruntime import open_file, versions_of, why_unavailable
from tumorseg_runtime.bundle.bundle import Artefact, Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.device.tensorrt_provider import engine_options


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
