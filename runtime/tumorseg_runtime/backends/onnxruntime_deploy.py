"""ONNX Runtime on the deploy form: resized pixels in, masks out (targets `onnx-deploy` and
`onnx-deploy-gray`).

Normalisation and threshold are in the graph, so that a program without this library can use it, too. It gives
no logits: no probability map, no margin. A pixel whose logit is not finite comes out as 255, which is no
decision, and no mask is made of such an answer (`tumorseg_runtime.core.session.checked_infer`).
"""

from __future__ import annotations

from pathlib import Path

from tumorseg_runtime.backends import onnxruntime as backend
from tumorseg_runtime.backends.onnxruntime import OnnxRuntimeSession, why_unavailable
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.backend import BackendSpec
from tumorseg_runtime.core.session import MASKS, SessionInfo
from tumorseg_runtime.device.tensorrt_provider import engine_options, largest_batch

__all__ = ["DeploySession", "open_session", "why_unavailable"]


class DeploySession(OnnxRuntimeSession):
    """A `Session` that takes uint8 pixels (N, C, H, W) and gives uint8 masks (N, K, H, W): 0, 1, or 255 for
    no decision."""

    output = MASKS


def open_session(
    spec: BackendSpec,
    bundle: Bundle,
    device: str,
    precision: str,
    threads: int | None,
    device_folder: Path | None = None,
) -> DeploySession:
    """A session on the artefact of the record's format.

    Option channels: planes that the form takes, the contract's where it is not named; 1 takes gray images
    only. Raises BackendError where the device cannot be had, BundleError where the bundle has no such
    artefact or one that does not fit its contract.
    """
    artefact = bundle.artefact(spec.formats[0], precision)
    file, channels = artefact.file, spec.options.get("channels", bundle.contract.channels)
    versions = backend.versions_of(device)
    engine = engine_options(device, artefact, bundle, channels, versions, device_folder)
    session = backend.open_model(bundle.read(file), file, device, threads, engine=engine)
    backend.check_fit(session, file, bundle.contract, channels, "uint8")
    info = SessionInfo(spec.name, device, precision, versions)
    return DeploySession(session, info, largest_batch(device, artefact), "uint8", channels)
