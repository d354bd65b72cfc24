"""Target `openvino`: the graph `model.xml` and its FP32 weights `model.bin`, for Intel's CPUs, GPUs, NPUs.

`openvino.convert_model` reports every conversion to a telemetry service; reading the ONNX file and saving
it does the same work without. The files hold neither a time nor a path.
"""

from __future__ import annotations

from pathlib import Path

from tumorseg_export import onnx_export
from tumorseg_export.source import Made, Source
from tumorseg_runtime.backends.openvino import load
from tumorseg_runtime.bundle import Artefact
from tumorseg_runtime.errors import BackendError, CheckFailedError

GRAPH, WEIGHTS = "model.xml", "model.bin"


def make(source: Source, folder: Path) -> Made:
    """Write the two files; needs `model.onnx` in the folder."""
    try:
        openvino = load()
    except ImportError as error:
        raise BackendError(
            f"openvino cannot be imported ({error}), expected it for the target openvino: "
            "pip install 'tumorseg[export,openvino]'"
        ) from error
    try:
        model = openvino.Core().read_model(folder / onnx_export.FILE)
        # OpenVINO numbers what ONNX does not name by a counter of the process: number it by its place.
        for place, node in enumerate(model.get_ordered_ops()):
            node.set_friendly_name(f"{node.get_type_name()}_{place}")
        openvino.save_model(model, folder / GRAPH, compress_to_fp16=False)  # it is True by default
    except RuntimeError as error:  # what OpenVINO's exceptions derive from
        raise CheckFailedError(
            f"openvino cannot convert {onnx_export.FILE} ({str(error).strip().splitlines()[-1]}): "
            "leave out the target openvino, or free memory and disk"
        ) from error
    tools = {**onnx_export.tool_versions(), "openvino": str(openvino.get_version())}
    return Made(Artefact(GRAPH, "openvino", "fp32", None, tools, (), weights=WEIGHTS), {})
