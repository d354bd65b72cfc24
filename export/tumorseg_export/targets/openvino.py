"""Targets `openvino`, `openvino-bf16`, `openvino-int8`: a graph (XML) and its weights, for Intel's devices.

`model.xml` is computed in FP32, `model.bf16.xml` in bfloat16: the same graph under another name, proven in
that precision. Half the bytes and twice the multiplications in an instruction make it the fastest on a CPU
with AVX512-BF16 or AMX, and 8 bits of significand the roughest: many a network is refused.
`model.int8.xml` is made of `model.int8.onnx`, as it is.

`openvino.convert_model` reports every conversion to a telemetry service; reading the ONNX file and saving
it does the same work without. The files hold neither a time nor a path.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tumorseg_export.checkpoint.context import ExportContext, ExportResult
from tumorseg_export.onnx import export as onnx_export
from tumorseg_export.onnx.passes.base import Pass
from tumorseg_export.onnx.passes.choice import TRANSPOSED, write_folded
from tumorseg_export.targets import onnx_int8 as int8
from tumorseg_runtime.backends.openvino import load
from tumorseg_runtime.bundle.bundle import Artefact
from tumorseg_runtime.core.errors import BackendError, CheckFailedError

GRAPH, WEIGHTS = "model.xml", "model.bin"
PASSES: dict[str, Pass] = {"upsampling as ConvTranspose": TRANSPOSED}


def make(
    context: ExportContext, folder: Path, *, graph: str = GRAPH, precision: str = "fp32"
) -> ExportResult:
    """Write the graph, and its weights beside it, of an artefact that computes in this precision; needs
    `model.onnx` in the folder, or `model.int8.onnx`.

    Raises BackendError without OpenVINO, CheckFailedError where it cannot convert.
    """
    try:
        openvino = load()
    except ImportError as error:
        raise BackendError(
            f"openvino cannot be imported ({error}), expected it for the target openvino: "
            "pip install 'tumorseg[export,openvino]'"
        ) from error
    try:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            source = int8.FILE if precision == "int8" else onnx_export.FILE
            folded = Path(name) / source
            passes = write_folded(folder / source, folded, {} if precision == "int8" else PASSES)
            model = openvino.Core().read_model(folded)
            # OpenVINO numbers what ONNX does not name by a counter of the process: number it by its place.
            for place, node in enumerate(model.get_ordered_ops()):
                node.set_friendly_name(f"{node.get_type_name()}_{place}")
            openvino.save_model(model, folder / graph, compress_to_fp16=False)  # it is True by default
            del model  # it maps the file, which goes now
    except RuntimeError as error:  # what OpenVINO's exceptions derive from
        raise CheckFailedError(
            f"openvino cannot convert {onnx_export.FILE} ({str(error).strip().splitlines()[-1]}): "
            "leave out the target openvino, or free memory and disk"
        ) from error
    tools = {**onnx_export.tool_versions(), "openvino": str(openvino.get_version())}
    weights = Path(graph).with_suffix(".bin").name
    artefact = Artefact(graph, "openvino", precision, None, tools, (), weights=weights)
    return ExportResult(artefact, {} if precision == "int8" else {"openvino": {"passes": passes}})
