"""ONNX Runtime on the deploy form for gray (see `tumorseg_runtime.backends.onnxruntime_deploy`)."""

from __future__ import annotations

from tumorseg_runtime.backends.onnxruntime import why_unavailable
from tumorseg_runtime.backends.onnxruntime_deploy import DeploySession, open_form
from tumorseg_runtime.bundle.bundle import Bundle

__all__ = ["open_session", "why_unavailable"]

NAME, FORMAT = "onnxruntime-deploy-gray", "onnx-deploy-gray"


def open_session(bundle: Bundle, device: str, precision: str, threads: int | None) -> DeploySession:
    """A session on the form that takes gray images only; raises as `onnxruntime_deploy.open_form`."""
    return open_form(NAME, FORMAT, 1, bundle, device, precision, threads)
