"""Target `onnx-deploy-gray`: the deploy form with one gray plane; see `tumorseg_export.deploy_export`."""

from __future__ import annotations

from pathlib import Path

from tumorseg_export.deploy_export import FORMAT_GRAY, make_form
from tumorseg_export.source import Made, Source


def make(source: Source, folder: Path) -> Made:
    """Write and prove `model.deploy-gray.onnx`; needs `model.onnx` in the folder."""
    return make_form(source, folder, FORMAT_GRAY)
