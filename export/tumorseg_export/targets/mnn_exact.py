"""Target `mnn-exact`: `model.exact.mnn`, for a network that the backend mnn computes too roughly.

See `tumorseg_export.targets.mnn`.
"""

from __future__ import annotations

from pathlib import Path

from tumorseg_export.checkpoint.context import ExportContext, ExportResult
from tumorseg_export.targets.mnn import make_file

FILE = "model.exact.mnn"


def make(context: ExportContext, folder: Path) -> ExportResult:
    """Write `model.exact.mnn`; needs `model.onnx` in the folder."""
    return make_file(folder, FILE, "mnn-exact")
