"""Target `ncnn`: the graph `model.ncnn.param` and its weights `model.ncnn.bin`, for x86 and Arm CPUs.

pnnx makes them from `model.onnx`. It stores weights in FP16 unless told otherwise; here it is told. Its
program is called directly: the Python package around it only adds options, and imports torch.
"""

from __future__ import annotations

import importlib.util
import tempfile
from importlib.metadata import version
from pathlib import Path

from tumorseg_export.checkpoint.context import ExportContext, ExportResult
from tumorseg_export.onnx import export as onnx_export
from tumorseg_export.onnx.passes.base import Pass
from tumorseg_export.onnx.passes.choice import TRANSPOSED, write_folded
from tumorseg_export.targets.converter_process import convert
from tumorseg_runtime.bundle.bundle import Artefact
from tumorseg_runtime.core.errors import BackendError, CheckFailedError
from tumorseg_runtime.core.files import move

GRAPH, WEIGHTS = "model.ncnn.param", "model.ncnn.bin"
PASSES: dict[str, Pass] = {"upsampling as ConvTranspose": TRANSPOSED}


def make(context: ExportContext, folder: Path) -> ExportResult:
    """Write the two files; needs `model.onnx` in the folder."""
    contract = context.contract
    shape = f"[1,{contract.channels},{contract.height},{contract.width}]"
    program = pnnx_program()
    # pnnx leaves five files of the weights' size beside its input, so it works in a folder inside this one.
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        passes = write_folded(folder / onnx_export.FILE, scratch / onnx_export.FILE, PASSES)
        command = [str(program), onnx_export.FILE, f"inputshape={shape}f32", "fp16=0"]
        convert("pnnx", command, scratch, [GRAPH, WEIGHTS])
        require_layers((scratch / GRAPH).read_text(encoding="utf-8"))
        for file in (GRAPH, WEIGHTS):
            move(scratch / file, folder / file)
    tools = {**onnx_export.tool_versions(), "pnnx": version("pnnx")}
    return ExportResult(
        Artefact(GRAPH, "ncnn", "fp32", None, tools, (), weights=WEIGHTS), {"ncnn": {"passes": passes}}
    )


def require_layers(graph: str) -> None:
    """Pass if ncnn has every layer that pnnx wrote, which leaves a name where it cannot translate."""
    import ncnn

    lines = graph.splitlines()[2:]  # magic number and counts; then each begins with the layer's type
    kinds = dict.fromkeys(line.split()[0] for line in lines if line.strip())
    if absent := [kind for kind in kinds if ncnn.layer_to_index(kind) == -1]:
        raise CheckFailedError(
            f"ncnn {version('ncnn')} has no layer {', '.join(absent)}, expected a graph of its layers: "
            "this network does not run under ncnn, leave that out of --targets"
        )


def pnnx_program() -> Path:
    """The converter's executable; raises BackendError where it is not installed."""
    spec = importlib.util.find_spec("pnnx")
    for folder in (spec and spec.submodule_search_locations) or []:
        for name in ("pnnx", "pnnx.exe"):
            if (Path(folder) / name).is_file():
                return Path(folder) / name
    raise BackendError(
        "pnnx is not installed, expected its program for the target ncnn: pip install 'tumorseg[export,ncnn]'"
    )
