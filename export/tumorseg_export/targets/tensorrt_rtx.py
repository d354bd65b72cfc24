"""Target `tensorrt-rtx`: an engine for NVIDIA's desktop and laptop GPUs, built ahead of time from
`model.fp16.onnx`, on any machine.

One engine holds all compute capabilities that were asked for: most of it is weights, which they share
(measured: 54.3 MB for five, 54.1 MB for one). Kernels are compiled on the device when it is first opened.
Jetson and most data-centre GPUs are not among them: they build their own engine (`tumorseg build`).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tumorseg_export.checkpoint.context import ExportContext, ExportResult
from tumorseg_export.engine.tensorrt_build import BuildOptions, RtxOptions, build_engine, known_capabilities
from tumorseg_export.targets import onnx_fp16 as fp16
from tumorseg_runtime.backends.tensorrt import FORMAT, load_tool
from tumorseg_runtime.bundle.bundle import Artefact, sha256_of
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.device.engines import EngineKey, write_engine

TOOL = "tensorrt_rtx"


def check(options: RtxOptions) -> None:
    """Raise BackendError where the package is missing, InputError where it does not know a capability."""
    known = known_capabilities(load_tool(TOOL))
    unknown = [one for one in options.capabilities if one not in known]
    if unknown or not options.capabilities or len(set(options.capabilities)) < len(options.capabilities):
        got = ", ".join(map(str, unknown or options.capabilities)) or "none"
        raise InputError(
            f"compute capabilities: got {got}, expected different ones of {', '.join(map(str, known))}: "
            "other GPUs build their own engine (tumorseg build)"
        )


def make(context: ExportContext, folder: Path) -> ExportResult:
    """Write `model.rtx-<sm>-<sm>....engine` with its record; needs `model.fp16.onnx` in the folder."""
    options = context.rtx
    check(options)
    graph = folder / fp16.FILE
    if not graph.is_file():
        raise InputError(f"target tensorrt-rtx is built from {fp16.FILE}: add the target onnx-fp16")
    trt = load_tool(TOOL)
    build = BuildOptions(options.profile, options.capabilities)
    built = build_engine(trt, graph.read_bytes(), context.contract, build, lambda line: None, name=graph.name)
    key = EngineKey(
        onnx_sha256=sha256_of(graph),
        bundle_sha256=None,
        precision="fp16",
        tool=TOOL,
        tool_version=str(trt.__version__),
        capabilities=options.capabilities,
        gpu=None,
        profile=options.profile,
        workspace_mb=None,
    )
    file = f"model.rtx-{'-'.join(f'sm{one}' for one in options.capabilities)}.engine"
    write_engine(folder / file, built.data, key)
    tools = {TOOL: key.tool_version}
    facts: dict[str, Any] = {FORMAT: {"key": key.digest(), **dataclasses.asdict(key)}}
    return ExportResult(Artefact(file, FORMAT, "fp16", options.profile.largest, tools, ()), facts)
