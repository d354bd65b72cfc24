"""OpenVINO: Intel's CPUs, GPUs and NPUs, and any other x86 or Arm CPU.

OpenVINO computes in bfloat16 or FP16 where the device is fast at it, unless a precision is named; here it
is named, and what the compiled network reports is compared. Its device is named, too: never AUTO. The
network is compiled for single images (an NPU takes nothing else), which go one at a time, so a batch gives
exactly what single images give.

The package loads a telemetry client when it is imported, which writes into the user's home folder. It is
hidden from that import (`load`).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.backend import BackendSpec
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError
from tumorseg_runtime.core.session import InProcess, InputForm, SessionInfo, check_batch
from tumorseg_runtime.device.engines import OtherMachineError

if TYPE_CHECKING:
    import openvino

DEVICES = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}
# ours, and OpenVINO's: INT8 is what the graph says, and this the rest of it
PRECISIONS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}
CAPABILITIES = {"fp16": "FP16", "bf16": "BF16", "int8": "INT8"}  # what a device must be able to do for it
TELEMETRY = "openvino_telemetry"
_importing = threading.Lock()


class OpenVinoSession(InProcess):
    """A `Session` on one compiled network. Threads may share it; their images take turns."""

    def __init__(self, compiled: openvino.CompiledModel, contract: Contract, info: SessionInfo) -> None:
        self._request = compiled.create_infer_request()
        self._turn = threading.Lock()
        self._contract = contract
        self.input = InputForm()
        self.info = info

    def infer(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 (N, C, H, W) -> float32 logits (N, K, H, W), image by image.

        Raises InputError for another shape, BackendError where OpenVINO fails.
        """
        check_batch(batch, self._contract)
        return np.stack([self._one(np.ascontiguousarray(image[None])) for image in batch])

    def _one(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 (1, C, H, W) contiguous -> float32 (K, H, W)."""
        with self._turn:
            try:
                self._request.infer([image], share_inputs=True)
                return np.array(self._request.get_output_tensor(0).data[0])  # the request reuses its memory
            except Exception as error:  # openvino promises no class of exceptions
                raise BackendError(
                    f"openvino on '{self.info.device}' failed on an image of shape {image.shape[1:]} "
                    f"({_first_line(error)}): free memory, or check the device"
                ) from error


def load() -> ModuleType:
    """The module openvino, imported without its telemetry client.

    Where the program has imported openvino before, that import stands. Raises ImportError.
    """
    with _importing:
        if "openvino" in sys.modules or TELEMETRY in sys.modules:
            return importlib.import_module("openvino")
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # so that its import fails
        try:
            return importlib.import_module("openvino")
        finally:
            del sys.modules[TELEMETRY]


def why_unavailable(device: str) -> str | None:
    """None where this machine can run the device ('cpu', 'gpu', 'npu'), else the reason in short."""
    if device not in DEVICES:
        raise InputError(f"device is '{device}', expected one of {', '.join(DEVICES)}")
    if importlib.util.find_spec("openvino") is None:
        return "openvino is not installed"
    try:
        openvino = load()
    except ImportError as error:
        return f"openvino is installed but cannot be imported ({_first_line(error)})"
    devices = openvino.Core().available_devices  # GPU, or GPU.0 and GPU.1 where there are two
    if DEVICES[device] not in {name.partition(".")[0] for name in devices}:
        return f"openvino {_version(openvino)} finds only {', '.join(devices) or 'no device'}"
    return None


def open_session(
    spec: BackendSpec, bundle: Bundle, device: str, precision: str, threads: int | None
) -> OpenVinoSession:
    """A session of this very device and precision; raises BackendError where it cannot be had,
    BundleError where the bundle has no such artefact or one that does not fit its contract."""
    if threads is not None and device != "cpu":
        raise InputError(f"threads is {threads} on '{device}', expected none: only the CPU has threads")
    openvino = load()
    artefact = bundle.artefact(spec.formats[0], precision)
    file = artefact.file
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": PRECISIONS[precision]}
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = str(threads)
    try:
        core = openvino.Core()
        _check_capable(core, device, precision)
        graph, *weights = map(bundle.read, artefact.files)
        model = core.read_model(graph, *weights)
        _check_fit(model, file, bundle.contract)
        model.reshape([1, *model.input(0).partial_shape[1:]])
        compiled = core.compile_model(model, DEVICES[device], options)
    except (BundleError, OtherMachineError):
        raise
    except Exception as error:  # openvino promises no class of exceptions
        raise BackendError(
            f"openvino cannot open {file} on '{device}' in {precision} ({_first_line(error)}): "
            "check the bundle, the device's driver, and that the device computes in this precision"
        ) from error
    _check_granted(compiled, device, precision)
    info = SessionInfo(spec.name, device, precision, {"openvino": _version(openvino)})
    return OpenVinoSession(compiled, bundle.contract, info)


def _check_capable(core: openvino.Core, device: str, precision: str) -> None:
    """Raise OtherMachineError where the device has no instructions for this precision."""
    needed = CAPABILITIES.get(precision)
    has = core.get_property(DEVICES[device], "OPTIMIZATION_CAPABILITIES")
    if needed is not None and needed not in has:
        raise OtherMachineError(
            f"openvino's {DEVICES[device]} has {', '.join(sorted(has))}, expected {needed} for {precision}: "
            "choose another precision, or a machine that has it"
        )


def _check_granted(compiled: openvino.CompiledModel, device: str, precision: str) -> None:
    """Raise BackendError where the compiled network reports another device or precision."""
    devices = [name.partition(".")[0] for name in compiled.get_property("EXECUTION_DEVICES")]
    kind = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if devices != [DEVICES[device]] or kind != PRECISIONS[precision]:
        raise BackendError(
            f"openvino gave {kind} on {', '.join(devices)}, expected {PRECISIONS[precision]} on "
            f"{DEVICES[device]}: it fell back; choose what the machine has"
        )


def _check_fit(model: openvino.Model, file: str, contract: Contract) -> None:
    """Raise BundleError unless the file has one float32 input and output of the contract's sizes."""
    sides = (
        ("takes", model.inputs, contract.channels),
        ("gives", model.outputs, len(contract.classes)),
    )
    for verb, ports, channels in sides:
        got = [(port.element_type.get_type_name(), _shape(port.partial_shape)) for port in ports]
        sizes = [channels, contract.height, contract.width]
        if len(got) != 1 or got[0][0] != "f32" or got[0][1][1:] != sizes:
            raise BundleError(
                f"{file} {verb} {', '.join(f'{kind} {shape}' for kind, shape in got)}, expected one f32 "
                f"[N, {', '.join(map(str, sizes))}]: the file is not the network of its contract; "
                "export it again"
            )


def _shape(partial: Any) -> list[int | None]:
    """Sizes of a partial shape, None for one that is left open."""
    if partial.rank.is_dynamic:
        return []
    return [None if size.is_dynamic else size.get_length() for size in partial]


def _version(openvino: ModuleType) -> str:
    """'2026.4.1' of '2026.4.1-22982-e213a147257-releases/2026/4'."""
    return str(openvino.get_version()).partition("-")[0]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__  # OpenVINO begins with its own source lines
