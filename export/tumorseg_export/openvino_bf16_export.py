"""Target `openvino-bf16`: OpenVINO in bfloat16; see `tumorseg_export.openvino_export`."""

from __future__ import annotations

from pathlib import Path

from tumorseg_export.openvino_export import make_files
from tumorseg_export.source import Made, Source

GRAPH = "model.bf16.xml"


def make(source: Source, folder: Path) -> Made:
    """Write `model.bf16.xml` and its weights; needs `model.onnx` in the folder."""
    return make_files(folder, GRAPH, "bf16")
