"""The backends, one module each, and the one place that names them."""

from __future__ import annotations

import importlib
from pathlib import Path

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.session import Session

# name -> module with `open_session(bundle, device, precision, threads) -> Session`
BACKENDS = {
    "onnxruntime": "tumorseg_runtime.backends.onnxruntime",
    "onnxruntime-deploy": "tumorseg_runtime.backends.onnxruntime_deploy",
    "onnxruntime-deploy-gray": "tumorseg_runtime.backends.onnxruntime_deploy_gray",
    "ncnn": "tumorseg_runtime.backends.ncnn",
    "mnn": "tumorseg_runtime.backends.mnn",
    "mnn-exact": "tumorseg_runtime.backends.mnn_exact",
    "openvino": "tumorseg_runtime.backends.openvino",
    "tensorrt": "tumorseg_runtime.backends.tensorrt",
}
# name -> formats of the bundle's artefacts that it opens; of several it takes the first that is there
FORMATS = {
    "onnxruntime": ("onnx",),
    "onnxruntime-deploy": ("onnx-deploy",),
    "onnxruntime-deploy-gray": ("onnx-deploy-gray",),
    "ncnn": ("ncnn",),
    "mnn": ("mnn",),
    "mnn-exact": ("mnn-exact", "mnn"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt-rtx",),
}
MASK_BACKENDS = ("onnxruntime-deploy", "onnxruntime-deploy-gray")  # which give masks and no logits
FOLDER_BACKENDS = ("tensorrt",)  # whose `open_session` also takes `device_folder`


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
    device_folder: where engines that were built for this device lie; only tensorrt looks there.
    Raises InputError for an unknown name, BackendError where the backend or device is not available.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend is '{backend}', expected one of {', '.join(BACKENDS)}")
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}, expected 1 or more (or none for the backend's default)")
    module = importlib.import_module(BACKENDS[backend])
    extra = {"device_folder": device_folder} if backend in FOLDER_BACKENDS and device_folder else {}
    session: Session = module.open_session(bundle, device, precision, threads, **extra)
    return session


def why_unavailable(backend: str, device: str) -> str | None:
    """None where this machine can run the device of the backend, else the reason in short.

    Raises InputError for a device that the backend does not know.
    """
    reason: str | None = importlib.import_module(BACKENDS[backend]).why_unavailable(device)
    return reason


def has_artefact(bundle: Bundle, backend: str, precision: str, device_folder: Path | None = None) -> bool:
    """True where the bundle, or for tensorrt the device folder, holds what the backend opens."""
    if any(one.format in FORMATS[backend] and one.precision == precision for one in bundle.artefacts):
        return True
    if device_folder is None or backend not in FOLDER_BACKENDS:
        return False
    from tumorseg_runtime.device.engines import latest_engine  # only a device with a GPU needs it

    return latest_engine(device_folder, bundle, precision) is not None
