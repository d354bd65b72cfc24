"""TensorRT and TensorRT-RTX engines, on one CUDA stream.

An engine comes from the bundle (target tensorrt-rtx) or from a device folder (`tumorseg build`). It is opened
only where its SHA-256, graph, GPU and exact TensorRT version fit: TensorRT's own checks miss some of these.
Without a driver neither package is touched: their objects may crash.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.backend import BackendSpec, split_device
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError
from tumorseg_runtime.core.session import DEVICE, HOST, LOGITS, MASKS, STREAM, InputForm, SessionInfo
from tumorseg_runtime.core.stop import postponed
from tumorseg_runtime.device.cuda import Gpu, open_gpu
from tumorseg_runtime.device.driver import why_no_driver
from tumorseg_runtime.device.engines import (
    TOOLS,
    Engine,
    Profile,
    find_engine,
    latest_engine,
    read_engine,
    record_of,
    require_machine,
)
from tumorseg_runtime.device.execution import Execution
from tumorseg_runtime.device.stream_session import StreamSession
from tumorseg_runtime.device.tensorrt_log import collecting_logger, remedy, why

FORMAT = "tensorrt-rtx"  # of the bundle's artefact
PLAIN, GRAY = "onnx", "onnx-deploy-gray"
FORMS = ("onnx-deploy", GRAY)  # that an engine is built from besides PLAIN: resized pixels in, masks out
DEVICES = ("cuda",)
EXTRAS = {"tensorrt": "tensorrt-cu13", "tensorrt_rtx": "tensorrt-rtx"}


class TensorRtSession(StreamSession):
    """A session on one engine, for any batch of its profile."""

    def __init__(
        self, execution: Execution, owners: tuple[Any, ...], names: tuple[str, str], form: InputForm,
        output: str, gpu: Gpu, contract: Contract, profile: Profile, info: SessionInfo,
    ) -> None:  # fmt: skip
        """owners: TensorRT's objects that must live as long as the context. names: of input and output."""
        self.output = output
        self._execution, self._owners = execution, owners
        self._inferred: set[int] = set()  # batch sizes
        self._input_name, self._output_name = names
        super().__init__(gpu, contract, form, info, profile.smallest)

    def enqueue(self, count: int, source: int, target: int) -> None:
        """As `OnStream`; raises BackendError where TensorRT refuses the batch or fails."""
        context, shape = self._execution.context_for(count), (count, *self._in_shape)
        ready = (
            context.set_input_shape(self._input_name, shape)
            and context.set_tensor_address(self._input_name, source)
            and context.set_tensor_address(self._output_name, target)
        )
        if not ready or tuple(context.get_tensor_shape(self._output_name)) != (count, *self._out_shape):
            raise BackendError(
                f"TensorRT refuses a batch of shape {shape}, expected a fit: build the engine again"
            )
        if not context.execute_async_v3(self.gpu.stream):
            raise BackendError(
                f"TensorRT failed on a batch of shape {shape}: try a smaller one, or check the GPU"
            )

    def served(self, count: int) -> None:
        """Keep the kernels that TensorRT-RTX compiled for the first batch of `count`."""
        if count not in self._inferred:
            self._execution.keep()
            self._inferred.add(count)

    def release(self) -> None:
        """Forget engine and context."""
        self._execution = self._owners = None  # type: ignore[assignment]


def why_unavailable(device: str) -> str | None:
    """None where this machine has what an engine needs, else the reason in short."""
    kind, ordinal = split_device(device)
    if kind not in DEVICES:
        raise InputError(f"device is '{device}', expected {', '.join(DEVICES)}")
    if reason := why_no_driver(ordinal):
        return reason
    if not any(importlib.util.find_spec(tool) for tool in TOOLS):
        return "neither tensorrt nor tensorrt_rtx is installed"
    if importlib.util.find_spec("cuda") is None:
        return "cuda-bindings is not installed"
    return None


def open_session(
    spec: BackendSpec,
    bundle: Bundle,
    device: str,
    precision: str,
    threads: int | None,
    device_folder: Path | None = None,
) -> TensorRtSession:
    """A session on the engine that `tumorseg build` put into the device folder, or on the bundle's own where
    that folder holds none of this bundle and precision.

    Option form: of the bundle's ONNX file that the engine was built from; of a deploy form the bundle holds
    no engine. Raises BackendError where driver or package are missing, or where the engine is for another GPU
    or version (OtherMachineError); BundleError where it is damaged or of another graph.
    """
    if threads is not None:
        raise InputError(f"threads is {threads}, a GPU has no CPU threads to bound: leave it out")
    form = spec.options.get("form", PLAIN)
    engine = _choose(bundle, precision, device_folder, form)
    return open_engine(engine, bundle, open_gpu(split_device(device)[1]), device_folder, form)


def _choose(bundle: Bundle, precision: str, device_folder: Path | None, form: str = PLAIN) -> Engine:
    """The engine in the device folder before the bundle's own; a folder may hold a ranking and no engine."""
    own = form == PLAIN and any(
        (one.format, one.precision) == (FORMAT, precision) for one in bundle.artefacts
    )
    if device_folder is not None and (not own or latest_engine(device_folder, bundle, precision, form)):
        return find_engine(device_folder, bundle, precision, form)
    if form != PLAIN:
        raise BundleError(
            f"{bundle.root}: an engine of {form} lies in a device folder, none was given or found: "
            f"tumorseg build {bundle.root} --form {form} --device-folder DIR"
        )
    file = bundle.artefact(FORMAT, precision).file
    path = bundle.root / file
    return read_engine(path, bundle.read(file), bundle.read(record_of(Path(file)).as_posix()))


def open_engine(
    stored: Engine, bundle: Bundle, gpu: Gpu, device_folder: Path | None = None, form: str = PLAIN
) -> TensorRtSession:
    """A session on an engine that was read with its key; raises like `open_session`.

    device_folder: where the kernels that TensorRT-RTX compiles at first use are kept; None keeps none.
    form: of the bundle's ONNX file that it was built from.
    """
    path, key = stored.path, stored.key
    source = bundle.sha256(bundle.artefact(form, key.precision).file)
    foreign = key.bundle_sha256 is not None and key.bundle_sha256 != bundle.digest()
    if key.onnx_sha256 != source or foreign:
        raise BundleError(
            f"{path.name}: was built from graph {key.onnx_sha256[:16]}, expected {source[:16]}: "
            f"build the engine again from {bundle.name}"
        )
    trt = load_tool(key.tool)
    require_machine(path, key, {key.tool: str(trt.__version__)}, gpu.capability, gpu.name)
    logger = collecting_logger(trt)
    with gpu.current(), postponed():  # TensorRT swallows what its logger raises
        runtime = trt.Runtime(logger)
        engine = runtime.deserialize_cuda_engine(stored.data)
        execution = None if engine is None else Execution.of(trt, engine, key, device_folder, gpu.stream)
        gpu.synchronise()
    if execution is None:
        raise BackendError(f"{path.name}: {key.tool} cannot load it ({why(logger)}): {remedy(logger)}")
    masks = form != PLAIN
    taken = InputForm(
        max_batch=key.profile.largest, channels=1 if form == GRAY else None, memory=(HOST, DEVICE, STREAM),
    )  # fmt: skip
    names, dtype = _interface(trt, engine, bundle.contract, taken, masks, path.name)
    info = SessionInfo(
        f"tensorrt{form.removeprefix(PLAIN)}", f"cuda:{gpu.ordinal}" if gpu.ordinal else "cuda",
        key.precision,
        {key.tool: str(trt.__version__), "gpu": gpu.name, "compute_capability": f"sm_{gpu.capability}"},
    )  # fmt: skip
    owners = (logger, runtime, engine)
    with gpu.current():
        taken = dataclasses.replace(taken, dtype=dtype)
        output = MASKS if masks else LOGITS
        return TensorRtSession(
            execution, owners, names, taken, output, gpu, bundle.contract, key.profile, info
        )


def load_tool(tool: str) -> Any:
    """The package 'tensorrt' or 'tensorrt_rtx'; raises BackendError that names the extra."""
    try:
        return importlib.import_module(tool)
    except ImportError as error:
        raise BackendError(
            f"{tool} cannot be imported ({error}), expected the package: "
            f"pip install 'tumorseg[{EXTRAS[tool]}]'"
            + (" (on Jetson it comes with JetPack)" if tool == "tensorrt" else "")
        ) from error


def _interface(
    trt: Any, engine: Any, contract: Contract, form: InputForm, masks: bool, name: str
) -> tuple[tuple[str, str], str]:
    """((input, output) names, input dtype) of an engine; raises BundleError where the contract differs."""
    tensors = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [one for one in tensors if engine.get_tensor_mode(one) == trt.TensorIOMode.INPUT]
    outputs = [one for one in tensors if one not in inputs]
    got = {
        one: (
            np.dtype(trt.nptype(engine.get_tensor_dtype(one))).name,
            tuple(engine.get_tensor_shape(one)[1:]),
        )
        for one in tensors
    }
    taken = form.shape(contract)
    dtypes = ("uint8",) if masks else ("float32", "float16")
    given = (dtypes[0], (len(contract.classes), contract.height, contract.width))
    fits = len(inputs) == len(outputs) == 1 and got[outputs[0]] == given and got[inputs[0]][1] == taken
    if not fits or got[inputs[0]][0] not in dtypes:
        raise BundleError(
            f"{name}: has {got}, expected one {'uint8' if masks else 'float'} input "
            f"(N, {', '.join(map(str, taken))}) and one {given[0]} output "
            f"(N, {', '.join(map(str, given[1]))}): build the engine again"
        )
    return (inputs[0], outputs[0]), got[inputs[0]][0]
