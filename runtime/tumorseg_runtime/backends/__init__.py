"""The backends, one module each, and the one place that names them."""

from __future__ import annotations

import importlib

from tumorseg_runtime.bundle import Bundle
from tumorseg_runtime.errors import InputError
from tumorseg_runtime.session import Session

# name -> module with `open_session(bundle, device, precision, threads) -> Session`
BACKENDS = {
    "onnxruntime": "tumorseg_runtime.backends.onnxruntime",
}


def open_session(
    bundle: Bundle,
    *,
    backend: str = "onnxruntime",
    device: str = "cpu",
    precision: str = "fp32",
    threads: int | None = None,
) -> Session:
    """A session of exactly this backend, device and precision, or an error: nothing is substituted.

    threads: CPU threads of one inference, None for the backend's default.
    Raises InputError for an unknown name, BackendError where the backend or device is not available.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend is '{backend}', expected one of {', '.join(BACKENDS)}")
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}, expected 1 or more (or none for the backend's default)")
    module = importlib.import_module(BACKENDS[backend])
    session: Session = module.open_session(bundle, device, precision, threads)
    return session
