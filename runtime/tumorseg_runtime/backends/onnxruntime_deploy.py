"""ONNX Runtime on the deploy form: resized pixels in, masks out (target `onnx-deploy`).

Normalisation and threshold are in the graph, so that a program without this library can use it, too. It gives
no logits: no probability map, no margin. A pixel whose logit is not finite comes out as 255, which is no
decision, and no mask is made of such an answer (`tumorseg_runtime.session.checked_infer`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.backends import onnxruntime as backend
from tumorseg_runtime.backends.onnxruntime import why_unavailable
from tumorseg_runtime.bundle import Bundle
from tumorseg_runtime.errors import BackendError
from tumorseg_runtime.session import MASKS, InputForm, SessionInfo

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["DeploySession", "open_form", "open_session", "why_unavailable"]

NAME, FORMAT = "onnxruntime-deploy", "onnx-deploy"


class DeploySession:
    """A `Session` that takes uint8 pixels and gives uint8 masks: 0, 1, or 255 for no decision."""

    output = MASKS

    def __init__(self, session: onnxruntime.InferenceSession, form: InputForm, info: SessionInfo) -> None:
        self._session = session
        self._input_name = session.get_inputs()[0].name
        self._output_name = session.get_outputs()[0].name
        self.input = form
        self.info = info

    def infer(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """uint8 (N, C, H, W) -> uint8 masks (N, K, H, W); raises BackendError where it fails."""
        try:
            (masks,) = self._session.run([self._output_name], {self._input_name: batch})
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise BackendError(
                f"{self.info.backend} on '{self.info.device}' failed on a batch of shape {batch.shape} "
                f"({str(error).strip().partition(chr(10))[0]}): try a smaller batch, or check the device"
            ) from error
        return masks  # type: ignore[no-any-return]  # onnxruntime has no types; checked_infer looks at it


def open_session(bundle: Bundle, device: str, precision: str, threads: int | None) -> DeploySession:
    """A session on the form that takes as many planes as the contract has channels; raises as `open_form`."""
    return open_form(NAME, FORMAT, bundle.contract.channels, bundle, device, precision, threads)


def open_form(
    name: str, format: str, channels: int, bundle: Bundle, device: str, precision: str, threads: int | None
) -> DeploySession:
    """A session of the backend `name` on the artefact of this format, which takes so many planes.

    Raises BackendError where the device cannot be had, BundleError where the bundle has no such artefact or
    one that does not fit its contract.
    """
    backend.require_available(name, device)
    artefact = bundle.artefact(format, precision)
    path = bundle.root / artefact.file
    session = backend.open_file(path, device, threads)
    backend.check_fit(session, path, bundle.contract, channels, "uint8")
    form = InputForm(dtype="uint8", max_batch=artefact.max_batch, channels=channels)
    info = SessionInfo(name, device, precision, backend.versions_of(device))
    return DeploySession(session, form, info)
