"""Target `onnx-deploy-gray`: the deploy form with one gray plane; see `onnx_deploy`."""

from __future__ import annotations

from pathlib import Path

from tumorseg_export.checkpoint.context import ExportContext, ExportResult
from tumorseg_export.targets.onnx_deploy import FORMAT_GRAY, make_form


def make(context: ExportContext, folder: Path) -> ExportResult:
    """Write and prove `model.deploy-gray.onnx`; needs `model.onnx` in the folder."""
    return make_form(context, folder, FORMAT_GRAY)
