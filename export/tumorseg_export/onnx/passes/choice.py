"""The passes that a graph goes through on its way to a format; each target names those that were measured to
profit there (`PASSES` of its module).

The measurements, and what was tried and left out, stand in docs/performance.md. `model.onnx` itself goes
through none of them: ONNX Runtime gains nothing that is worth another graph.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import onnx

from tumorseg_export.onnx.passes.base import Pass
from tumorseg_export.onnx.passes.upsampling import fold_upsampling
from tumorseg_runtime.core.files import write_bytes

PHASES = functools.partial(fold_upsampling, form="phases")
TRANSPOSED = functools.partial(fold_upsampling, form="transposed")


def write_folded(graph: Path, to: Path, passes: Mapping[str, Pass]) -> dict[str, int]:
    """Write the ONNX file `graph` after these passes to `to`.

    Returns how many places each pass changed, without those that changed none.
    """
    model = onnx.load(graph)
    changed = {}
    for name, one in passes.items():
        result = one(model)
        model = result.model
        if result.modified:
            changed[name] = result.modified
    write_bytes(to, model.SerializeToString(), durable=False)
    return changed
