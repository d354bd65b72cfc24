"""Target `mnn-exact`: `model.exact.mnn`, for a network that the backend mnn computes too roughly.

See `tumorseg_export.mnn_export`.
"""

from __future__ import annotations

from pathlib import Path

from tumorseg_export.mnn_export import make_file
from tumorseg_export.source import Made, Source

FILE = "model.exact.mnn"


def make(source: Source, folder: Path) -> Made:
    """Write `model.exact.mnn`; needs `model.onnx` in the folder."""
    return make_file(folder, FILE, "mnn-exact")
