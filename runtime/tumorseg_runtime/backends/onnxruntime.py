"""ONNX Runtime: the default backend, on the CPU and through its CUDA and TensorRT providers.

ONNX Runtime answers a provider that it cannot use with the CPU and a line in a log. Here one provider
is asked for, the CPU is forbidden as a stand-in, what the session really got is compared, and on a GPU one
inference is profiled: no node may have run elsewhere. TF32, which rounds factors to 10 bits and which both
GPU providers use by default, is off.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from tumorseg_runtime.backends.onnxruntime_sessions import OnnxRuntimeSession, OnnxRuntimeStream, first_line
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.backend import BackendSpec, split_device
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError
from tumorseg_runtime.core.records import Format
from tumorseg_runtime.core.session import MASKS, InputForm, SessionInfo
from tumorseg_runtime.device.cuda import open_gpu
from tumorseg_runtime.device.driver import why_no_driver
from tumorseg_runtime.device.tensorrt_provider import engine_options, largest_batch, why_no_tensorrt

if TYPE_CHECKING:
    import onnxruntime

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
DTYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}
# The option of the CUDA provider is known from 1.18 on; the TensorRT provider has none, only this variable of
# NVIDIA's libraries, which is read when the first of them starts, and counts for the whole process.
TF32_OPTION, TF32_VARIABLE, OFF = "use_tf32", "NVIDIA_TF32_OVERRIDE", "0"
_PROFILE = Format("profile", "install another version of onnxruntime", error=BackendError)
# A folder for weights that lie outside of the model's file; they would be no part of what was hashed.
EXTERNAL_WEIGHTS = "session.model_external_initializers_file_folder_path"
STREAM_OPTION = "user_compute_stream"
HELD = (
    TF32_OPTION,
    STREAM_OPTION,
    "device_id",
)  # what the session must report as it was asked for
ERRORS_AND_WORSE = 3  # ONNX Runtime's own log level; what matters is raised here


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
    if kind == "cuda" and importlib.util.find_spec("cuda") is None:
        return "cuda-bindings is not installed"
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
) -> OnnxRuntimeSession | OnnxRuntimeStream:
    """A session of this very device and precision; raises BackendError where it cannot be had,
    BundleError where the bundle has no such artefact or one that does not fit its contract.

    A record that gives masks opens a deploy form, which a program without this library can use, too: resized
    uint8 pixels in; uint8 masks out, of 0, 1, or 255 where the logit was not finite, of which no mask is made
    (`core.session.checked_infer`). It has no probability map and no margin. Option channels: planes that the
    form takes; 1 takes gray images only.
    device_folder: where TensorRT's engines are kept; None builds them at each opening.
    """
    artefact = bundle.artefact(spec.formats[0], precision)
    file, contract = artefact.file, bundle.contract
    masks = spec.output == MASKS
    form = InputForm(
        "uint8" if masks else "float32",
        max_batch=largest_batch(device, artefact),
        channels=spec.options.get("channels"),
    )
    channels = form.shape(contract)[0]
    info = SessionInfo(spec.name, device, precision, versions_of(device))
    engine = engine_options(device, artefact, bundle, channels, info.versions, device_folder)
    kind, ordinal = split_device(device)
    gpu = open_gpu(ordinal) if kind == "cuda" else None
    with contextlib.nullcontext() if gpu is None else gpu.current():
        stream = None if gpu is None else gpu.stream
        session = open_model(bundle.read(file), file, device, threads, engine=engine, stream=stream)
        check_fit(session, file, contract, channels, "uint8" if masks else "float")
        if gpu is None:
            return OnnxRuntimeSession(session, info, form, spec.output)
        return OnnxRuntimeStream(session, info, form, spec.output, gpu, contract)


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
    stream: int | None = None,
) -> onnxruntime.InferenceSession:
    """ONNX Runtime's own session on a file's bytes, with exactly the provider of `device` or BackendError.

    name: of the file, for messages. A model that keeps weights in another file is refused.
    arena: whether memory once taken from the system is kept, in steps that double; without, the peak is less.
    engine: of `engine_options`. stream: of CUDA, on which all of it runs; None for one of its own.

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
    if stream is not None:
        asked[STREAM_OPTION] = str(stream)
        options.enable_mem_pattern = False  # its second run takes one more block: none may be in a CUDA graph
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


def nodes_elsewhere(session: onnxruntime.InferenceSession, provider: str) -> list[str]:
    """Run a session, which was opened with profiling, on zeros: 'name (provider)' of each node that ran on
    another provider than this. Ends the profiling; raises BackendError where no node was seen at all."""
    (taken,) = session.get_inputs()
    sizes = [size if isinstance(size, int) else 1 for size in taken.shape]
    try:
        session.run(None, {taken.name: np.zeros(sizes, DTYPES.get(taken.type, np.float32))})
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise BackendError(
            f"onnxruntime fails on {provider} with a first batch of {taken.type} {sizes} "
            f"({first_line(error)}): check the device, or export the bundle again"
        ) from error
    events = _PROFILE.read(Path(session.end_profiling()), list[dict[str, Any]])
    ran = {
        str(event["name"]): str(event["args"]["provider"])
        for event in events
        if event.get("cat") == "Node" and event.get("args", {}).get("provider")
    }
    if not ran:
        raise BackendError(
            f"onnxruntime's profile names no node, expected those of the network on {provider}: "
            "install another version of onnxruntime"
        )
    return [f"{name} ({got})" for name, got in ran.items() if got != provider]


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
