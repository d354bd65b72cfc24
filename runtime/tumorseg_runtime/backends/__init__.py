"""The backends, one module each, and the one place that names them."""

from __future__ import annotations

import importlib
from pathlib import Path

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.backend import BackendSpec, split_device
from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.core.session import MASKS, Session

GPU_EXTRA = "gpu-cu12 or gpu-cu13"
ONNX_RUNTIME_WHEELS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
ONNX_RUNTIME_DEVICES = {
    "cpu": "cpu",
    "cuda": GPU_EXTRA,
    "tensorrt": f"{GPU_EXTRA}, and TensorRT's libraries",
}
TENSORRT_EXTRAS = "tensorrt-cu12, tensorrt-cu13 or tensorrt-rtx"
_RECORDS = (
    BackendSpec(
        "onnxruntime",
        "tumorseg_runtime.backends.onnxruntime",
        formats=("onnx",),
        devices=ONNX_RUNTIME_DEVICES,
        precisions=("fp32", "fp16", "int8"),
        label="ONNX {precision}, ONNX Runtime {device}",
        wheels=ONNX_RUNTIME_WHEELS,
        keeps_engines=("tensorrt",),
    ),
    BackendSpec(
        "onnxruntime-deploy",
        "tumorseg_runtime.backends.onnxruntime",
        formats=("onnx-deploy",),
        devices=ONNX_RUNTIME_DEVICES,
        precisions=("fp32",),
        label="ONNX deploy form, ONNX Runtime {device}",
        wheels=ONNX_RUNTIME_WHEELS,
        keeps_engines=("tensorrt",),
        output=MASKS,
    ),
    BackendSpec(
        "onnxruntime-deploy-gray",
        "tumorseg_runtime.backends.onnxruntime",
        formats=("onnx-deploy-gray",),
        devices=ONNX_RUNTIME_DEVICES,
        precisions=("fp32",),
        label="ONNX deploy form for gray, ONNX Runtime {device}",
        wheels=ONNX_RUNTIME_WHEELS,
        keeps_engines=("tensorrt",),
        output=MASKS,
        options={"channels": 1},
    ),
    BackendSpec(
        "ncnn",
        "tumorseg_runtime.backends.ncnn",
        formats=("ncnn",),
        devices={"cpu": "ncnn"},
        precisions=("fp32",),
        label="ncnn {precision}, {device}",
        wheels=("ncnn",),
    ),
    BackendSpec(
        "mnn",
        "tumorseg_runtime.backends.mnn",
        formats=("mnn",),
        devices={"cpu": "mnn"},
        precisions=("fp32",),
        label="MNN {precision}, {device}",
        wheels=("MNN",),
    ),
    BackendSpec(
        "mnn-exact",
        "tumorseg_runtime.backends.mnn",
        formats=("mnn-exact", "mnn"),
        devices={"cpu": "mnn"},
        precisions=("fp32",),
        label="MNN {precision} exact, {device}",
        wheels=("MNN",),
        # small Winograd tiles only: less rounding, more multiplications
        options={"winograd_level": 1},
    ),
    BackendSpec(
        "openvino",
        "tumorseg_runtime.backends.openvino",
        formats=("openvino",),
        devices={"cpu": "openvino", "gpu": None, "npu": None},
        precisions=("fp32", "bf16", "int8"),
        label="OpenVINO {precision}, {device}",
        wheels=("openvino",),
    ),
    BackendSpec(
        "tensorrt",
        "tumorseg_runtime.backends.tensorrt",
        formats=("tensorrt-rtx",),
        devices={"cuda": TENSORRT_EXTRAS},
        precisions=("fp32", "fp16"),
        label="TensorRT engine {precision}, {device}",
        device_folder=True,
    ),
    BackendSpec(
        "tensorrt-deploy",
        "tumorseg_runtime.backends.tensorrt",
        formats=(),
        devices={"cuda": TENSORRT_EXTRAS},
        precisions=("fp32",),
        label="TensorRT engine of the deploy form, {device}",
        device_folder=True,
        output=MASKS,
        options={"form": "onnx-deploy"},
    ),
    BackendSpec(
        "tensorrt-deploy-gray",
        "tumorseg_runtime.backends.tensorrt",
        formats=(),
        devices={"cuda": TENSORRT_EXTRAS},
        precisions=("fp32",),
        label="TensorRT engine of the deploy form for gray, {device}",
        device_folder=True,
        output=MASKS,
        options={"form": "onnx-deploy-gray"},
    ),
)
BACKENDS = {spec.name: spec for spec in _RECORDS}
MASK_BACKENDS = tuple(name for name, spec in BACKENDS.items() if spec.output == MASKS)


def open_session(
    bundle: Bundle,
    *,
    backend: str = "onnxruntime",
    device: str = "cpu",
    precision: str = "fp32",
    threads: int | None = None,
    device_folder: Path | None = None,
) -> Session:
    """A session of exactly this backend, device and precision, or an error: nothing is substituted.

    threads: CPU threads of one inference, None for the backend's default.
    device_folder: where engines that were built for this device lie, for a backend that opens them.
    Raises InputError for an unknown name, BackendError where the backend or device is not available.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend is '{backend}', expected one of {', '.join(BACKENDS)}")
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}, expected 1 or more (or none for the backend's default)")
    spec = BACKENDS[backend]
    if reason := why_unavailable(backend, device):
        extra = spec.devices[split_device(device)[0]]
        remedy = f"install the extra ({extra})" if extra else "take such a machine"
        raise BackendError(
            f"{backend} on '{device}' is not available: {reason}; expected a machine that runs it: {remedy}, "
            "or choose another device or backend"
        )
    folder = {"device_folder": device_folder} if uses_folder(backend, device) else {}
    module = importlib.import_module(spec.module)
    session: Session = module.open_session(spec, bundle, device, precision, threads, **folder)
    return session


def uses_folder(backend: str, device: str) -> bool:
    """Whether a backend opens on this device what was built for it, or keeps there what it builds."""
    spec = BACKENDS.get(backend)
    return spec is not None and (spec.device_folder or split_device(device)[0] in spec.keeps_engines)


def why_unavailable(backend: str, device: str) -> str | None:
    """None where this machine can run the device of the backend, else the reason in short.

    Raises InputError for a device that the backend does not know.
    """
    reason: str | None = importlib.import_module(BACKENDS[backend].module).why_unavailable(device)
    return reason


def files_of(bundle: Bundle, backend: str, precision: str) -> tuple[str, ...]:
    """The files of the bundle's artefact that the backend would open, none where there is no such one."""
    formats = BACKENDS[backend].formats if backend in BACKENDS else ()
    fitting = [one for one in bundle.artefacts if one.format in formats and one.precision == precision]
    return min(fitting, key=lambda one: formats.index(one.format)).files if fitting else ()


def has_artefact(bundle: Bundle, backend: str, precision: str, device_folder: Path | None = None) -> bool:
    """True where the bundle, or for tensorrt the device folder, holds what the backend opens."""
    spec = BACKENDS[backend]
    if any(one.format in spec.formats and one.precision == precision for one in bundle.artefacts):
        return True
    if device_folder is None or not spec.device_folder:
        return False
    from tumorseg_runtime.device.engines import latest_engine  # only a device with a GPU needs it

    return latest_engine(device_folder, bundle, precision, spec.options.get("form", "onnx")) is not None
