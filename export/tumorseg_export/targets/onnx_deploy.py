"""Targets `onnx-deploy` and `onnx-deploy-gray`: pixels in, masks out (`onnx.passes.deploy`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from tumorseg_export.checkpoint.context import ExportContext, ExportResult
from tumorseg_export.onnx import export as onnx_export
from tumorseg_export.onnx.passes.deploy import NO_DECISION, to_deploy
from tumorseg_runtime.bundle.bundle import Artefact
from tumorseg_runtime.core.errors import InputError

FORMAT, FORMAT_GRAY = "onnx-deploy", "onnx-deploy-gray"
FILES = {FORMAT: "model.deploy.onnx", FORMAT_GRAY: "model.deploy-gray.onnx"}


def make(context: ExportContext, folder: Path, *, gray: bool = False) -> ExportResult:
    """Write the file of either form; needs `model.onnx` in the folder.

    Raises InputError where the gray form is asked of a contract that is gray already, or no golden image is
    gray, CheckFailedError for a network that it does not fit.
    """
    contract, format = context.contract, FORMAT_GRAY if gray else FORMAT
    file = FILES[format]
    if gray and contract.channels == 1:
        raise InputError(f"target {format}: the contract is gray already: take {FORMAT} in its place")
    if gray and not any(item.pixels.ndim == 2 for item in context.golden):
        raise InputError(
            f"target {format}: got no gray golden image, expected one to compare it on: use --golden"
        )
    model = to_deploy(onnx.load(folder / onnx_export.FILE), contract, gray=gray).model
    onnx_export.write_graph(model, folder / file, context, precision="fp32")
    sizes = {"layout": "NCHW", "height": contract.height, "width": contract.width}
    channels = int(model.graph.input[0].type.tensor_type.shape.dim[1].dim_value)
    facts: dict[str, Any] = {
        format: {
            "input": {"dtype": "uint8", "channels": channels, **sizes},
            "output": {"dtype": "uint8", "channels": len(contract.classes), **sizes},
            "values": {"outside": 0, "inside": 1, "not finite": NO_DECISION},
        }
    }
    return ExportResult(Artefact(file, format, "fp32", None, onnx_export.tool_versions(), ()), facts)
