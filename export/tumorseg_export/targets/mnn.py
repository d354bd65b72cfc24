"""Target `mnn`: `model.mnn`, for MNN on CPUs, proven under both its backends, mnn and mnn-exact.

For a network whose error under mnn is beyond the budget there is the target `mnn-exact`, an option of this
one: the same bytes under another name, proven under mnn-exact, and mnn does not open it.

The compiled converter is called directly. The package's own command around it, `MNN.tools.mnnconvert`,
imports a logger that installs a package with pip and sends facts about machine and model out.

The converter gives every file a random identifier; here it is one of the ONNX file's hash, so that the
same run gives the same bytes.
"""

from __future__ import annotations

import re
import sys
import tempfile
import uuid
from importlib.metadata import version
from pathlib import Path

from tumorseg_export.checkpoint.context import ExportContext, ExportResult
from tumorseg_export.onnx import export as onnx_export
from tumorseg_export.onnx.passes.base import Pass
from tumorseg_export.onnx.passes.choice import PHASES, write_folded
from tumorseg_export.onnx.passes.dilation import fold_dilation
from tumorseg_export.targets.converter_process import convert
from tumorseg_runtime.bundle.bundle import Artefact, sha256_of
from tumorseg_runtime.core.errors import CheckFailedError
from tumorseg_runtime.core.files import write_bytes

FILE = "model.mnn"
PASSES: dict[str, Pass] = {"dilation": fold_dilation, "upsampling as four Conv": PHASES}
CONVERT = "import sys, _tools; sys.exit(0 if _tools.mnnconvert(['mnnconvert', *sys.argv[1:]]) else 1)"
UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def make(context: ExportContext, folder: Path, *, file: str = FILE, format: str = "mnn") -> ExportResult:
    """Convert `model.onnx` in the folder to `file`, an artefact of this format.

    Raises CheckFailedError where the converter fails.
    """
    graph = folder / onnx_export.FILE
    with tempfile.TemporaryDirectory(dir=folder) as name:
        passes = write_folded(graph, Path(name) / graph.name, PASSES)
        arguments = ["-f", "ONNX", "--modelFile", graph.name, "--MNNModel", file, "--bizCode", "tumorseg"]
        command = [sys.executable, "-c", CONVERT, *arguments, "--batch", "1"]
        convert("the converter of MNN", command, Path(name), [file])
        content = with_identifier((Path(name) / file).read_bytes(), sha256_of(graph))
    write_bytes(folder / file, content, durable=False)
    tools = {**onnx_export.tool_versions(), "MNN": version("MNN")}
    return ExportResult(Artefact(file, format, "fp32", None, tools, ()), {format: {"passes": passes}})


def with_identifier(content: bytes, sha256: str) -> bytes:
    """The file with an identifier made of the hash; raises CheckFailedError where it has not exactly one."""
    found = UUID.findall(content)
    if len(found) != 1:
        raise CheckFailedError(
            f"the MNN file holds {len(found)} identifiers, expected 1: "
            "export with the tested versions (constraints.txt)"
        )
    identifier = str(uuid.UUID(hex=sha256[:32], version=4)).encode()
    return content.replace(found[0], identifier)
