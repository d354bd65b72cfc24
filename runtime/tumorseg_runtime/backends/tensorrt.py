"""TensorRT and TensorRT-RTX engines, on one CUDA stream.

An engine comes from the bundle (target tensorrt-rtx) or from a device folder (`tumorseg build`). It is opened
only where its SHA-256, graph, GPU and exact TensorRT version fit: TensorRT's own checks miss some of these.
Without a driver neither package is touched: their objects may crash.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.backend import BackendSpec, split_device
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError
from tumorseg_runtime.core.session import DEVICE, HOST, STREAM, InProcess, InputForm, SessionInfo
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
from tumorseg_runtime.device.tensor import interface_of
from tumorseg_runtime.device.tensorrt_log import collecting_logger, remedy, why

FORMAT = "tensorrt-rtx"  # of the bundle's artefact
DEVICES = ("cuda",)
ALIGNMENT = 256  # bytes, of an address that TensorRT takes
EXTRAS = {"tensorrt": "tensorrt-cu13", "tensorrt_rtx": "tensorrt-rtx"}


class TensorRtSession(InProcess):
    """A `Session` on one engine. Its buffers hold the largest batch and are kept; calls wait for each other.

    `infer` also takes a tensor in device memory (`__cuda_array_interface__`), which is read where it lies.
    """

    def __init__(
        self, execution: Execution, owners: tuple[Any, ...], names: tuple[str, str], dtype: str, gpu: Gpu,
        contract: Contract, profile: Profile, info: SessionInfo,
    ) -> None:  # fmt: skip
        """owners: TensorRT's objects that must live as long as the context. names: of input and output."""
        self._execution, self._owners = execution, owners
        self._inferred: set[int] = set()  # batch sizes
        self._input_name, self._output_name = names
        self._gpu = gpu
        self._profile = profile
        self._lock = threading.Lock()
        self._in_shape = (contract.channels, contract.height, contract.width)
        self._out_shape = (len(contract.classes), contract.height, contract.width)
        self._dtype = np.dtype(dtype)
        self.input = InputForm(dtype=dtype, max_batch=profile.largest, memory=(HOST, DEVICE, STREAM))
        self.info = info
        in_bytes, out_bytes = (
            profile.largest * int(np.prod(shape)) * itemsize
            for shape, itemsize in ((self._in_shape, self._dtype.itemsize), (self._out_shape, 4))
        )
        self._in_device, self._in_host = gpu.device_memory(in_bytes), gpu.pinned_memory(in_bytes)
        self._out_device, self._out_host = gpu.device_memory(out_bytes), gpu.pinned_memory(out_bytes)

    def infer(self, batch: Any) -> npt.NDArray[np.float32]:
        """(N, C, H, W) of `input.dtype`, in host or device memory -> float32 logits (N, K, H, W) on the host.

        Raises InputError for another form or a batch outside of the engine's profile, BackendError where
        TensorRT or the GPU fails.
        """
        with self._lock, self._gpu.current():
            read = self._read_host if isinstance(batch, np.ndarray) else self._read_device
            address, shape = read(batch)
            out_shape = (shape[0], *self._out_shape)
            self.enqueue(shape[0], address, self._out_device.pointer)
            nbytes = int(np.prod(out_shape)) * 4
            self._gpu.download(self._out_host.pointer, self._out_device.pointer, nbytes)
            self._gpu.synchronise()
            self.served(shape[0])
            logits = self._out_host.array()[:nbytes].view(np.float32).reshape(out_shape)
            return np.array(logits)  # the pinned memory is written again by the next call

    def enqueue(self, count: int, source: int, target: int) -> None:
        """Queue a batch of `count` images at device address `source` whose logits go to `target`, on the
        stream of `gpu`; waits for nothing. The context is current. Raises BackendError."""
        context, shape = self._execution.context, (count, *self._in_shape)
        ready = (
            context.set_input_shape(self._input_name, shape)
            and context.set_tensor_address(self._input_name, source)
            and context.set_tensor_address(self._output_name, target)
        )
        if not ready or tuple(context.get_tensor_shape(self._output_name)) != (count, *self._out_shape):
            raise BackendError(
                f"TensorRT refuses a batch of shape {shape}, expected a fit: build the engine again"
            )
        if not context.execute_async_v3(self._gpu.stream):
            raise BackendError(
                f"TensorRT failed on a batch of shape {shape}: try a smaller one, or check the GPU"
            )

    def served(self, count: int) -> None:
        """Keep the kernels that TensorRT-RTX compiled for the first batch of `count`."""
        if count not in self._inferred:
            self._execution.keep()
            self._inferred.add(count)

    @property
    def gpu(self) -> Gpu:
        """The GPU and the stream of its engine."""
        return self._gpu

    capturable = True  # TensorRT makes ready at the first call for a shape what cannot be captured

    def close(self) -> None:
        """Give engine, buffers and stream back, in the engine's own context."""
        with self._lock, self._gpu.current():
            self._execution = self._owners = None  # type: ignore[assignment]
            self._in_device = self._in_host = self._out_device = self._out_host = None  # type: ignore[assignment]

    def _read_host(self, batch: npt.NDArray[Any]) -> tuple[int, tuple[int, ...]]:
        """Bring a batch to the GPU: its address there, and its shape."""
        self._require_form(batch.dtype, batch.shape, packed=True)
        host = self._in_host.array()[: batch.nbytes].view(self._dtype).reshape(batch.shape)
        host[...] = batch
        self._gpu.upload(self._in_device.pointer, self._in_host.pointer, batch.nbytes)
        return self._in_device.pointer, batch.shape

    def _read_device(self, batch: Any) -> tuple[int, tuple[int, ...]]:
        """Wait for a batch that is in device memory: its address and shape."""
        interface = interface_of(batch, "batch")
        dtype, shape = np.dtype(interface["typestr"]), tuple(interface["shape"])
        strides = interface.get("strides")
        packed = strides is None or tuple(strides) == _packed_strides(shape, dtype.itemsize)
        self._require_form(dtype, shape, packed=packed)
        address = self._gpu.wait_for(interface, "batch")
        if address % ALIGNMENT:
            self._gpu.copy(self._in_device.pointer, address, int(np.prod(shape)) * dtype.itemsize)
            address = self._in_device.pointer
        return address, shape

    def _require_form(self, dtype: np.dtype[Any], shape: tuple[int, ...], *, packed: bool) -> None:
        profile = self._profile
        fits = dtype == self._dtype and shape[1:] == self._in_shape and packed
        if not fits or not profile.smallest <= shape[0] <= profile.largest:
            raise InputError(
                f"batch is {dtype} {shape}{'' if packed else ' with gaps'}, the engine takes {self._dtype} "
                f"(N, {', '.join(map(str, self._in_shape))}) without gaps, N from {profile.smallest} to "
                f"{profile.largest}: split it, or build an engine with another profile"
            )


def _packed_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[axis + 1 :])) * itemsize for axis in range(len(shape)))


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

    Raises BackendError where driver or package are missing, or where the engine is for another GPU or version
    (OtherMachineError); BundleError where it is damaged or of another graph.
    """
    if threads is not None:
        raise InputError(f"threads is {threads}, a GPU has no CPU threads to bound: leave it out")
    engine = _choose(bundle, precision, device_folder)
    return open_engine(engine, bundle, open_gpu(split_device(device)[1]), device_folder)


def _choose(bundle: Bundle, precision: str, device_folder: Path | None) -> Engine:
    """The engine in the device folder before the bundle's own; a folder may hold a ranking and no engine."""
    own = any((one.format, one.precision) == (FORMAT, precision) for one in bundle.artefacts)
    if device_folder is not None and (not own or latest_engine(device_folder, bundle, precision)):
        return find_engine(device_folder, bundle, precision)
    file = bundle.artefact(FORMAT, precision).file
    path = bundle.root / file
    return read_engine(path, bundle.read(file), bundle.read(record_of(Path(file)).as_posix()))


def open_engine(
    stored: Engine, bundle: Bundle, gpu: Gpu, device_folder: Path | None = None
) -> TensorRtSession:
    """A session on an engine that was read with its key; raises like `open_session`.

    device_folder: where the kernels that TensorRT-RTX compiles at first use are kept; None keeps none.
    """
    path, key = stored.path, stored.key
    source = bundle.sha256(bundle.artefact("onnx", key.precision).file)
    foreign = key.bundle_sha256 is not None and key.bundle_sha256 != bundle.digest()
    if key.onnx_sha256 != source or foreign:
        raise BundleError(
            f"{path.name}: was built from graph {key.onnx_sha256[:16]}, expected {source[:16]}: "
            f"build the engine again from {bundle.name}"
        )
    trt = load_tool(key.tool)
    require_machine(path, key, {key.tool: str(trt.__version__)}, gpu.capability, gpu.name)
    logger = collecting_logger(trt)
    with gpu.current():
        runtime = trt.Runtime(logger)
        engine = runtime.deserialize_cuda_engine(stored.data)
        execution = None if engine is None else Execution.of(trt, engine, key, device_folder)
    if execution is None:
        raise BackendError(f"{path.name}: {key.tool} cannot load it ({why(logger)}): {remedy(logger)}")
    names, dtype = _interface(trt, engine, bundle.contract, path.name)
    info = SessionInfo(
        "tensorrt", f"cuda:{gpu.ordinal}" if gpu.ordinal else "cuda", key.precision,
        {key.tool: str(trt.__version__), "gpu": gpu.name, "compute_capability": f"sm_{gpu.capability}"},
    )  # fmt: skip
    owners = (logger, runtime, engine)
    with gpu.current():
        return TensorRtSession(execution, owners, names, dtype, gpu, bundle.contract, key.profile, info)


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


def _interface(trt: Any, engine: Any, contract: Contract, name: str) -> tuple[tuple[str, str], str]:
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
    taken = (contract.channels, contract.height, contract.width)
    given = ("float32", (len(contract.classes), contract.height, contract.width))
    fits = len(inputs) == len(outputs) == 1 and got[outputs[0]] == given and got[inputs[0]][1] == taken
    if not fits or got[inputs[0]][0] not in ("float32", "float16"):
        raise BundleError(
            f"{name}: has {got}, expected one float input (N, {', '.join(map(str, taken))}) and one float32 "
            f"output (N, {', '.join(map(str, given[1]))}): build the engine again"
        )
    return (inputs[0], outputs[0]), got[inputs[0]][0]
