"""Stage `tensorrt`: engines built on this device by TensorRT, of the conformance networks and of a bundle."""

from __future__ import annotations

import dataclasses
import functools

from tumorseg_benchmarks.gpu_evidence.engines import KINDS, PRECISIONS, PROFILE, build, check_engine
from tumorseg_benchmarks.gpu_evidence.stage import Findings, NotPossibleError, Options, require_driver
from tumorseg_export.engine.build import DeviceOptions, build_for_device
from tumorseg_runtime.backends.tensorrt import FORMS, PLAIN, load_tool
from tumorseg_runtime.bundle.bundle import Artefact, Bundle
from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.device.cuda import open_gpu


def run(options: Options, found: Findings) -> None:
    """Build and check_engine. Without a driver TensorRT is not touched: its objects may crash."""
    require_driver()
    try:
        trt, gpu = load_tool("tensorrt"), open_gpu()
    except BackendError as error:
        raise NotPossibleError(str(error)) from error
    found.figures["tensorrt"] = str(trt.__version__)
    for kind in KINDS:
        for precision in PRECISIONS:

            def work(kind: str = kind, precision: str = precision) -> str:
                data, key = build(trt, kind, precision, ())
                return check_engine(
                    data, dataclasses.replace(key, capabilities=(gpu.capability,)), kind, gpu, options.folder
                )

            found.attempt(f"conformance {kind}, engine {precision}", work)
    if options.bundle is None:
        return found.lacks("a trained network: --bundle was not given")
    bundle = Bundle.open(options.bundle)
    for artefact in bundle.artefacts:
        if artefact.format in (PLAIN, *FORMS) and artefact.precision in PRECISIONS:
            work = functools.partial(of_bundle, bundle, artefact, options, found)
            found.attempt(f"{bundle.name}, engine of {artefact.file}", work)
    return None


def of_bundle(bundle: Bundle, artefact: Artefact, options: Options, found: Findings) -> str:
    """`tumorseg build`, and what it measured; a second one builds nothing."""
    wanted = DeviceOptions(artefact.precision, artefact.format, PROFILE, workspace_mb=1024)
    made = build_for_device(bundle, options.folder, wanted, found.log)
    again = build_for_device(bundle, options.folder, wanted, found.log)
    if again.seconds:
        raise BackendError(
            f"a second build took {again.seconds:.0f} s, expected the engine that stands there"
        )
    error = f"logit error {made.max_logit_error:.2g}" if artefact.format == PLAIN else "no logits"
    return f"built in {made.seconds:.0f} s, {error}, {made.flipped_pixels} pixels flipped"
