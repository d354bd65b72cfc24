"""Target `openvino-bf16`: OpenVINO in bfloat16; see `tumorseg_export.targets.openvino`."""

from __future__ import annotations

from pathlib import Path

from tumorseg_export.checkpoint.context import ExportContext, ExportResult
from tumorseg_export.targets.openvino import make_files

GRAPH = "model.bf16.xml"


def make(context: ExportContext, folder: Path) -> ExportResult:
    """Write `model.bf16.xml` and its weights; needs `model.onnx` in the folder."""
    return make_files(folder, GRAPH, "bf16")
