"""ONNX Runtime: the default backend, on the CPU and through its CUDA and TensorRT providers.

ONNX Runtime answers a provider that it cannot use with the CPU and a line in a log. Here one provider
is asked for, the CPU is forbidden as a stand-in, what the session really got is compared, and on a GPU one
inference is profiled: no node may have run elsewhere. TF32, which rounds factors to 10 bits and which both
GPU providers use by default, is off.

The deploy forms (targets `onnx-deploy` and `onnx-deploy-gray`) take resized pixels and give masks:
normalisation and threshold are in the graph, so that a program without this library can use it, too. They
give no logits: no probability map, no margin. A pixel whose logit is not finite comes out as 255, which is no
decision, and no mask is made of such an answer (`tumorseg_runtime.core.session.checked_infer`).
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.backend import BackendSpec, split_device
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError
from tumorseg_runtime.core.session import LOGITS, MASKS, InProcess, InputForm, SessionInfo
from tumorseg_runtime.core.text import first_line
from tumorseg_runtime.device.driver import why_no_driver
from tumorseg_runtime.device.placement import nodes_elsewhere
from tumorseg_runtime.device.tensorrt_provider import engine_options, largest_batch, why_no_tensorrt

if TYPE_CHECKING:
    import onnxruntime

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
# The option of the CUDA provider is known from 1.18 on; the TensorRT provider has none, only this variable of
# NVIDIA's libraries, which is read when the first of them starts, and counts for the whole process.
TF32_OPTION, TF32_VARIABLE, OFF = "use_tf32", "NVIDIA_TF32_OVERRIDE", "0"
# A folder for weights that lie outside of the model's file; they would be no part of what was hashed.
EXTERNAL_WEIGHTS = "session.model_external_initializers_file_folder_path"
HELD = (TF32_OPTION, "device_id")  # options that the session must report as they were asked for
ERRORS_AND_WORSE = 3  # ONNX Runtime's own log level; what matters is raised here


class OnnxRuntimeSession(InProcess):
    """A `Session` on one ONNX file and one execution provider. output: of a deploy form, MASKS: uint8 pixels
    (N, C, H, W) to uint8 masks (N, K, H, W) of 0, 1, or 255 for no decision."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        info: SessionInfo,
        max_batch: int | None,
        channels: int | None = None,
        output: str = LOGITS,
    ) -> None:
        self._session = session
        self._input_name = session.get_inputs()[0].name
        self._output_name = session.get_outputs()[0].name
        dtype = "uint8" if output == MASKS else "float32"
        self.input = InputForm(dtype=dtype, max_batch=max_batch, channels=channels)
        self.output = output
        self.info = info

    def infer(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """float32 (N, C, H, W) -> float32 logits (N, K, H, W), or what a form of its own takes and gives;
        raises BackendError where it fails."""
        try:
            (answer,) = self._session.run([self._output_name], {self._input_name: batch})
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise BackendError(
                f"{self.info.backend} on '{self.info.device}' failed on a batch of shape {batch.shape} "
                f"({first_line(error)}): try a smaller batch, or check the device"
            ) from error
        return answer  # type: ignore[no-any-return]  # onnxruntime has no types; checked_infer looks at it


def why_unavailable(device: str) -> str | None:
    """None where this machine can run the device ('cpu', 'cuda', 'tensorrt'), else the reason in short."""
    kind, ordinal = split_device(device)
    if kind not in PROVIDERS or (kind == "cpu" and device != kind):
        raise InputError(f"device is '{device}', expected one of {', '.join(PROVIDERS)}, or cuda:1")
    if kind != "cpu" and (reason := why_no_driver(ordinal)):
        return reason
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return "onnxruntime is not installed"
    except ImportError as error:
        return f"onnxruntime is installed but cannot be imported ({first_line(error)})"
    if PROVIDERS[kind] not in onnxruntime.get_available_providers():
        return f"onnxruntime {onnxruntime.__version__} was built without {PROVIDERS[kind]}"
    if kind == "tensorrt":
        preload()
        return why_no_tensorrt(Path(onnxruntime.__file__).parent / "capi")
    return None


def open_session(
    spec: BackendSpec,
    bundle: Bundle,
    device: str,
    precision: str,
    threads: int | None,
    device_folder: Path | None = None,
) -> OnnxRuntimeSession:
    """A session of this very device and precision; raises BackendError where it cannot be had,
    BundleError where the bundle has no such artefact or one that does not fit its contract.

    Option channels of the record: planes that a deploy form takes, the contract's where it is not named.
    device_folder: where TensorRT's engines are kept; None builds them at each opening.
    """
    artefact = bundle.artefact(spec.formats[0], precision)
    file, planes = artefact.file, spec.options.get("channels")
    channels = planes or bundle.contract.channels
    engine = engine_options(device, artefact, bundle, channels, versions_of(device), device_folder)
    session = open_model(bundle.read(file), file, device, threads, engine=engine)
    check_fit(session, file, bundle.contract, channels, "uint8" if spec.output == MASKS else "float")
    info = SessionInfo(spec.name, device, precision, versions_of(device))
    return OnnxRuntimeSession(session, info, largest_batch(device, artefact), planes, spec.output)


def open_file(path: Path, device: str, threads: int | None, **options: Any) -> onnxruntime.InferenceSession:
    """`open_model` on a file that this program has just made."""
    return open_model(path.read_bytes(), path.name, device, threads, **options)


def open_model(
    model: bytes,
    name: str,
    device: str,
    threads: int | None,
    *,
    arena: bool = True,
    engine: Mapping[str, str] = MappingProxyType({}),
) -> onnxruntime.InferenceSession:
    """ONNX Runtime's own session on a file's bytes, with exactly the provider of `device` or BackendError.

    name: of the file, for messages. A model that keeps weights in another file is refused.
    arena: whether memory once taken from the system is kept, in steps that double; without, the peak is less.
    engine: of `engine_options`.

    For a GPU it has run once: on zeros, profiled, every node on that provider. The profile lies in a folder
    for temporary files, which is removed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_AND_WORSE
    options.enable_cpu_mem_arena = arena
    options.add_session_config_entry(EXTERNAL_WEIGHTS, os.devnull)  # no folder: none can be found
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    kind, ordinal = split_device(device)
    if kind == "cpu":
        # Threads that spin after an inference, waiting for the next one, take a core from what follows it.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        return _open(model, name, device, options, {})
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if kind == "tensorrt":
        _require_no_tf32()
    provider, asked = PROVIDERS[kind], {"device_id": str(ordinal), **engine}
    if kind == "cuda":
        asked[TF32_OPTION] = OFF
    with tempfile.TemporaryDirectory(prefix="tumorseg-profile-") as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = _open(model, name, device, options, asked)
        elsewhere = nodes_elsewhere(session, provider)
    if elsewhere:
        raise BackendError(
            f"{name}: {len(elsewhere)} nodes did not run on {provider} ({', '.join(elsewhere[:3])}), "
            "expected none: choose another device or artefact"
        )
    return session


def _open(
    model: bytes,
    name: str,
    device: str,
    options: onnxruntime.SessionOptions,
    provider_options: dict[str, str],
) -> onnxruntime.InferenceSession:
    import onnxruntime

    provider = PROVIDERS[split_device(device)[0]]
    complaint = preload() if provider != PROVIDERS["cpu"] else ""
    try:
        session = onnxruntime.InferenceSession(
            model,
            options,
            providers=[provider],
            provider_options=[provider_options],
            enable_fallback=0,  # else Python tries again with others, and their error hides the first
        )
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise BackendError(
            f"onnxruntime cannot open {name} on '{device}' "
            f"({'; '.join(filter(None, (first_line(error), complaint)))}): "
            "check the bundle (tumorseg predict checks its hashes) and the provider's libraries"
        ) from error
    got = session.get_providers()[0]
    if got != provider:
        raise BackendError(
            f"onnxruntime gave {got}, expected {provider}: it fell back; check the provider's libraries"
        )
    granted = session.get_provider_options()[provider]
    wanted = {name: provider_options[name] for name in HELD if name in provider_options}
    if refused := {name: granted.get(name) for name in wanted if granted.get(name) != wanted[name]}:
        expected = {name: wanted[name] for name in refused}
        raise BackendError(
            f"onnxruntime on '{device}' has {refused}, expected {expected}: install onnxruntime-gpu "
            "1.20 or newer"
        )
    return session


@functools.cache
def preload() -> str:
    """Load CUDA's and cuDNN's libraries from where pip put them; '' or onnxruntime's first complaint."""
    import onnxruntime

    if not hasattr(onnxruntime, "preload_dlls"):  # before 1.21
        return ""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # it prints what it does not find
        onnxruntime.preload_dlls()
    return next(iter(said.getvalue().splitlines()), "")


def _require_no_tf32() -> None:
    """Switch TF32 off for this process; raises BackendError where somebody has switched it on."""
    got = os.environ.setdefault(TF32_VARIABLE, OFF)
    if got != OFF:
        raise BackendError(
            f"{TF32_VARIABLE} is '{got}', expected it unset or '{OFF}', as fp32 shall not be rounded: "
            "unset it before the program starts"
        )


def check_fit(
    session: onnxruntime.InferenceSession, file: str, contract: Contract, channels: int, dtype: str = "float"
) -> None:
    """Raise BundleError unless the file has one input of so many channels and one output of the contract's
    sizes, both tensor(<dtype>)."""
    kind = f"tensor({dtype})"
    sides = (
        ("takes", session.get_inputs(), channels),
        ("gives", session.get_outputs(), len(contract.classes)),
    )
    for verb, nodes, planes in sides:
        sizes = (planes, contract.height, contract.width)
        fits = len(nodes) == 1 and nodes[0].type == kind and len(nodes[0].shape) == 4
        # a size that is left open has a name or None instead of a number
        if not fits or any(
            isinstance(got, int) and got != size for got, size in zip(nodes[0].shape[1:], sizes, strict=True)
        ):
            got = ", ".join(f"{node.type} {node.shape}" for node in nodes)
            raise BundleError(
                f"{file} {verb} {got}, expected one {kind} (N, {', '.join(map(str, sizes))}): "
                "the file is not the network of its contract; export it again"
            )


def versions_of(device: str) -> dict[str, str]:
    """What a session on this device says of itself: the version, and on a GPU that TF32 is off."""
    import onnxruntime

    return {"onnxruntime": onnxruntime.__version__, **({} if device == "cpu" else {"tf32": "off"})}
