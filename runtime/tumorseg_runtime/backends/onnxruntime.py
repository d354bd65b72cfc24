"""ONNX Runtime: the default backend, on the CPU and through its CUDA and TensorRT providers.

ONNX Runtime answers a provider that it cannot use with the CPU and a line in a log. Here one provider
is asked for, the CPU is forbidden as a stand-in, and what the session really got is compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.bundle import Bundle
from tumorseg_runtime.contract import Contract
from tumorseg_runtime.driver import why_no_driver
from tumorseg_runtime.errors import BackendError, BundleError, InputError
from tumorseg_runtime.session import InputForm, SessionInfo

if TYPE_CHECKING:
    import onnxruntime

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
ERRORS_AND_WORSE = 3  # ONNX Runtime's own log level; what matters is raised here


class OnnxRuntimeSession:
    """A `Session` on one ONNX file and one execution provider."""

    def __init__(
        self, session: onnxruntime.InferenceSession, info: SessionInfo, max_batch: int | None
    ) -> None:
        self._session = session
        self._input_name = session.get_inputs()[0].name
        self._output_name = session.get_outputs()[0].name
        self.input = InputForm(max_batch=max_batch)
        self.info = info

    def infer(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 (N, C, H, W) -> float32 logits (N, K, H, W); raises BackendError where it fails."""
        try:
            (logits,) = self._session.run([self._output_name], {self._input_name: batch})
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise BackendError(
                f"onnxruntime on '{self.info.device}' failed on a batch of shape {batch.shape} "
                f"({_first_line(error)}): try a smaller batch, or check the device"
            ) from error
        return logits  # type: ignore[no-any-return]  # onnxruntime has no types; checked_infer looks at it


def why_unavailable(device: str) -> str | None:
    """None where this machine can run the device ('cpu', 'cuda', 'tensorrt'), else the reason in short."""
    if device not in PROVIDERS:
        raise InputError(f"device is '{device}', expected one of {', '.join(PROVIDERS)}")
    if device != "cpu" and (reason := why_no_driver()):
        return reason
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return "onnxruntime is not installed"
    except ImportError as error:
        return f"onnxruntime is installed but cannot be imported ({_first_line(error)})"
    if PROVIDERS[device] not in onnxruntime.get_available_providers():
        return f"onnxruntime {onnxruntime.__version__} was built without {PROVIDERS[device]}"
    return None


def open_session(bundle: Bundle, device: str, precision: str, threads: int | None) -> OnnxRuntimeSession:
    """A session of this very device and precision; raises BackendError where it cannot be had,
    BundleError where the bundle has no such artefact or one that does not fit its contract."""
    reason = why_unavailable(device)
    if reason:
        extra = "cpu" if device == "cpu" else "gpu-cu12 or gpu-cu13"
        raise BackendError(
            f"onnxruntime on '{device}' is not available: {reason}; expected a machine that runs it: "
            f"install the extra ({extra}) or choose another device"
        )
    artefact = bundle.artefact("onnx", precision)
    path = bundle.root / artefact.file
    session = open_file(path, device, threads)
    _check_fit(session, path, bundle.contract)
    import onnxruntime

    info = SessionInfo("onnxruntime", device, precision, {"onnxruntime": onnxruntime.__version__})
    return OnnxRuntimeSession(session, info, artefact.max_batch)


def open_file(path: Path, device: str, threads: int | None) -> onnxruntime.InferenceSession:
    """ONNX Runtime's own session on a file, with exactly the provider of `device` or BackendError."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_AND_WORSE
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    provider = PROVIDERS[device]
    if device != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise BackendError(
            f"onnxruntime cannot open {path.name} on '{device}' ({_first_line(error)}): "
            "check the bundle (tumorseg predict checks its hashes) and the provider's libraries"
        ) from error
    got = session.get_providers()[0]
    if got != provider:
        raise BackendError(
            f"onnxruntime gave {got}, expected {provider}: it fell back; check the provider's libraries"
        )
    return session


def _check_fit(session: onnxruntime.InferenceSession, path: Path, contract: Contract) -> None:
    """Raise BundleError unless the file has one float32 input and output of the contract's sizes."""
    sides = (
        ("takes", session.get_inputs(), contract.channels),
        ("gives", session.get_outputs(), len(contract.classes)),
    )
    for verb, nodes, channels in sides:
        sizes = (channels, contract.height, contract.width)
        fits = len(nodes) == 1 and nodes[0].type == "tensor(float)" and len(nodes[0].shape) == 4
        # a size that is left open has a name or None instead of a number
        if not fits or any(
            isinstance(got, int) and got != size for got, size in zip(nodes[0].shape[1:], sizes, strict=True)
        ):
            got = ", ".join(f"{node.type} {node.shape}" for node in nodes)
            raise BundleError(
                f"{path.name} {verb} {got}, expected one tensor(float) (N, {', '.join(map(str, sizes))}): "
                "the file is not the network of its contract; export it again"
            )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
