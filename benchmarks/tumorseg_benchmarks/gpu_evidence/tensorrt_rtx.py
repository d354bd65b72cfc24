"""Stage `rtx`: engines that TensorRT-RTX builds ahead of time, and on a GPU that it serves their logits."""

from __future__ import annotations

from tumorseg_benchmarks.gpu_evidence.engines import KINDS, PRECISIONS, build, check_engine
from tumorseg_benchmarks.gpu_evidence.stage import Findings, NotPossibleError, Options
from tumorseg_benchmarks.gpu_evidence.verified import note_verified
from tumorseg_export.engine.tensorrt_build import known_capabilities
from tumorseg_runtime.backends.tensorrt import load_tool
from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.device.cuda import Gpu, open_gpu
from tumorseg_runtime.device.driver import why_no_driver


def run(options: Options, found: Findings) -> None:
    """Building needs no GPU; what is built counts only where it ran."""
    try:
        trt = load_tool("tensorrt_rtx")
    except BackendError as error:
        raise NotPossibleError(str(error)) from error
    found.figures["tensorrt_rtx"] = str(trt.__version__)
    known = known_capabilities(trt)
    gpu, why = find_gpu(known)
    if gpu is None and not options.dry:
        raise NotPossibleError(why)
    target = max(known) if gpu is None else gpu.capability
    for kind in KINDS:
        for precision in PRECISIONS:

            def work(kind: str = kind, precision: str = precision) -> str:
                data, key = build(trt, kind, precision, (target,))
                if gpu is None:
                    return f"{len(data)} bytes for sm_{target}, not run"
                return check_engine(data, key, kind, gpu, options.folder)

            found.attempt(f"conformance {kind}, engine {precision}", work)
    if gpu is None:
        found.lacks(f"engines that run: {why}")
    elif options.bundle is None:
        found.lacks("a trained network: --bundle was not given")
    else:
        note_verified(options.bundle, "tensorrt", None, found)


def find_gpu(known: dict[int, object]) -> tuple[Gpu | None, str]:
    """The GPU where TensorRT-RTX serves it, else None and why."""
    if reason := why_no_driver():
        return None, reason
    gpu = open_gpu()
    if gpu.capability not in known:
        served = ", ".join(f"sm_{one}" for one in known)
        return None, f"TensorRT-RTX serves {served}, {gpu.name} is sm_{gpu.capability}"
    return gpu, ""
