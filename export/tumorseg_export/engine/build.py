"""`tumorseg build`, the work: an engine of a bundle for the GPU of this device, into its device folder.

Runs on the device: needs TensorRT, and neither torch nor onnx. The folder gets `<key>.engine`, its record
(`tumorseg_runtime.device.engines`), `<key>.parity.json` with the certificate measured here, and the timing
cache that makes the next build short. The bundle stays as it was sealed.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tumorseg_export.engine.tensorrt_build import PROFILE, BuildOptions, build_engine
from tumorseg_runtime.backends.tensorrt import DEVICES, GRAY, PLAIN, load_tool, open_engine
from tumorseg_runtime.bundle.bundle import Artefact, Bundle
from tumorseg_runtime.core.backend import split_device
from tumorseg_runtime.core.errors import BackendError, InputError, ParityError
from tumorseg_runtime.core.files import make_folder, write_bytes, write_text
from tumorseg_runtime.core.records import to_json
from tumorseg_runtime.device.cuda import Gpu, open_gpu
from tumorseg_runtime.device.driver import why_no_driver
from tumorseg_runtime.device.engines import (
    EngineKey,
    Profile,
    read_engine,
    read_key,
    read_record,
    record_of,
    write_engine,
)
from tumorseg_runtime.device.trust import PRIVATE
from tumorseg_runtime.inference.segmenter import BATCH_SIZE, door_of
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.compare import ParityReport, summary
from tumorseg_runtime.parity.reference import load_golden
from tumorseg_runtime.parity.replay import full_plan, replay

TOOL = "tensorrt"
Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class DeviceOptions:
    """What is to be built. form, precision: of the bundle's ONNX file; no precision means fp16, of a deploy
    form fp32, which is all that it has. workspace_mb: in MiB, None for no limit. device: the GPU, 'cuda:1' is
    the second."""

    precision: str | None = None
    form: str = PLAIN
    profile: Profile = PROFILE
    workspace_mb: int | None = None
    device: str = "cuda"


@dataclasses.dataclass(frozen=True)
class DeviceEngine:
    """An engine in a device folder that passed parity here. seconds: of the build, 0 where it stood there."""

    path: Path
    key: EngineKey
    seconds: float
    max_logit_error: float
    flipped_pixels: int


def build_for_device(bundle: Bundle, folder: Path, options: DeviceOptions, log: Log) -> DeviceEngine:
    """Build, prove on the golden images, and keep; an engine of the very same key is proven and used again.

    Raises BackendError (no driver, no TensorRT, build failed, out of memory), BundleError (no such ONNX
    file), InputError (no GPU's name, or the folder cannot be written), ParityError (the engine decides other
    than PyTorch and was removed).
    """
    precision = options.precision or ("fp16" if options.form == PLAIN else "fp32")
    artefact = bundle.artefact(options.form, precision)
    build = BuildOptions(options.profile, workspace_mb=options.workspace_mb, smallest_too=True)
    kind, ordinal = split_device(options.device)
    if kind not in DEVICES:
        raise InputError(f"device is '{options.device}', expected cuda, or cuda:1 for the second GPU")
    if reason := why_no_driver(ordinal):
        raise BackendError(
            f"an engine is built on the GPU that runs it, here: {reason}; expected an NVIDIA driver that "
            "works: run this on the device (for RTX cards the export target tensorrt-rtx needs no GPU)"
        )
    trt, gpu = load_tool(TOOL), open_gpu(ordinal)
    key = EngineKey(
        onnx_sha256=bundle.files[artefact.file].sha256,
        bundle_sha256=bundle.digest(),
        precision=precision,
        tool=TOOL,
        tool_version=str(trt.__version__),
        capabilities=(gpu.capability,),
        gpu=gpu.name,
        profile=options.profile,
        workspace_mb=options.workspace_mb,
    )
    path = folder / key.name()
    seconds = 0.0
    if record_of(path).is_file() and read_key(path) == key:
        log(f"{path.name} stands there already, it is only proven again")
    else:
        log(f"building for {gpu.name} (sm_{gpu.capability}) with TensorRT {key.tool_version}, for minutes")
        started = time.perf_counter()
        with gpu.current():  # TensorRT builds for the GPU whose context that is
            _build(trt, bundle, artefact, path, key, build, log)
        seconds = time.perf_counter() - started
    return _validate(path, key, bundle, gpu, seconds, options.form)


def _build(
    trt: Any, bundle: Bundle, artefact: Artefact, path: Path, key: EngineKey, options: BuildOptions, log: Log
) -> None:
    make_folder(path.parent, PRIVATE)
    cache = path.parent / f"{TOOL}-{key.tool_version}-sm{key.capabilities[0]}.timing"
    known = cache.read_bytes() if cache.is_file() else b""
    options = dataclasses.replace(options, timing_cache=known)
    file, contract = artefact.file, bundle.contract
    if artefact.format == GRAY:  # one plane in place of three
        contract = dataclasses.replace(contract, mean=contract.mean[:1], std=contract.std[:1])
    built = build_engine(trt, bundle.read(file), contract, options, log, name=file)
    if built.timing_cache is not None:
        write_bytes(cache, built.timing_cache)
    write_engine(path, built.data, key)


def _validate(
    path: Path, key: EngineKey, bundle: Bundle, gpu: Gpu, seconds: float, form: str
) -> DeviceEngine:
    """Replay the golden images in several batch sizes; keep the certificate, or remove the engine."""
    session = open_engine(read_engine(path), bundle, gpu, path.parent, form)
    golden = load_golden(bundle)
    size = min(key.profile.largest, len(golden), max(BATCH_SIZE, key.profile.smallest))
    plan, budget = full_plan(size), BUDGETS[key.precision]

    def proven(logits: bool) -> ParityReport:
        door = door_of(bundle, session, size, logits, kernel_cache=path.parent)
        return replay(door, golden, budget, plan, artefact=path.name)

    first, *others = map(proven, (True, False) if form == PLAIN else (True,))
    images = itertools.chain(first.images, *(other.images for other in others))
    report = dataclasses.replace(first, images=tuple(images))
    if report.breaches:
        record_of(path).unlink()
        path.unlink()
        raise ParityError(
            f"the engine decides other than PyTorch on {gpu.name} and was removed: "
            f"{summary(report.breaches)}: build with --precision fp32"
        )
    values = {
        "engine": path.name,
        "sha256": read_record(path).sha256,
        "reports": [{"batch_size": size, **report.to_dict()}],
    }
    write_text(path.with_suffix(".parity.json"), to_json(values))
    return DeviceEngine(
        path, key, seconds, max(image.max_error for image in first.images),
        sum(image.flipped for image in report.images),
    )  # fmt: skip
