"""TensorRT without a GPU, for tests: builds and runs 'engines' whose logit is the mean of the channels.

For a graph that begins with b"deploy" they give the mask of it; b"deploy-gray" takes one plane for three.

`FakeTensorRt` stands in for the modules `tensorrt` and `tensorrt_rtx`, with the names that 10.3, 11 and RTX
share. It runs on `fakes.cuda.FakeDriver`, or on the null GPU (`gpu_null.null.Null`), at whose addresses it
reads and writes. `gpu_null/test_stand_in.py` compares names and arguments with the real packages.
"""

from __future__ import annotations

import abc
import ctypes
import enum
import json
from types import SimpleNamespace
from typing import Any

import numpy as np

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.processing.preprocess import Preprocessor

MAGIC = b"fake engine "
DEPLOY, DEPLOY_GRAY = b"deploy", b"deploy-gray"
TABLE = Preprocessor(Contract()).table  # (3, 256), of the deploy forms
ALIGNMENT = 256  # bytes, of an address that TensorRT takes


class Severity(enum.IntEnum):
    """TensorRT's levels of a log message."""

    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


class FakeILogger(abc.ABC):
    """Base of loggers."""

    Severity = Severity

    @abc.abstractmethod
    def log(self, severity: int, message: str) -> None:
        """Take one message."""


class FakeTensorRt:
    """A module of TensorRT, or of TensorRT-RTX. `driver` has `run`, which starts work on a stream.

    `fails` is an error that is logged instead of building or loading.
    Network: `channels`, `classes`, `size` (H, W) and `gain`, for any graph but one that is `broken`.
    calls: what the builder's configuration was told, in order. executed: profile and images of each batch.
    """

    def __init__(
        self, driver: Any, *, version: str = "10.3.0", rtx: bool = False, channels: int = 3, classes: int = 1,
        size: tuple[int, int] = (64, 64), gain: float = 1.0, fails: str = "", broken: bool = False,
    ) -> None:  # fmt: skip
        self.__name__, self.__version__ = "tensorrt_rtx" if rtx else "tensorrt", version
        self.rtx = rtx
        if rtx:
            self.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="EAGER", LAZY="LAZY")
        self.driver = driver
        self.channels, self.classes, self.size, self.gain = channels, classes, size, gain
        self.fails, self.broken = fails, broken
        self.calls: list[tuple[Any, ...]] = []
        self.executed: list[tuple[int, int]] = []
        self.float32 = "float32"
        self.ILogger = FakeILogger
        self.IProgressMonitor = type("IProgressMonitor", (), {"__init__": lambda self: None})
        self.TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.ExecutionContextAllocationStrategy = SimpleNamespace(STATIC=0, ON_PROFILE_CHANGE=1)
        self.graph = b""
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.BuilderFlag = SimpleNamespace(TF32="tf32")
        self.ComputeCapability = SimpleNamespace(SM87="SM87", SM89="SM89", CURRENT="CURRENT")

    def nptype(self, dtype: str) -> type[Any]:
        """numpy's type of a TensorRT type."""
        return np.dtype(dtype).type

    def Builder(self, logger: Any) -> _Builder:  # TensorRT's names
        return _Builder(self, logger)

    def OnnxParser(self, network: Any, logger: Any) -> _Parser:
        return _Parser(self)

    def Runtime(self, logger: Any) -> _Runtime:
        return _Runtime(self, logger)


class _Tensor:
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.shape, self.dtype = name, shape, "float32"


class _Parser:
    num_errors = 1

    def __init__(self, trt: FakeTensorRt) -> None:
        self._trt = trt

    def parse(self, model: bytes) -> bool:
        self._trt.graph = model
        return bool(model) and not self._trt.broken

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(node=lambda: -1, desc=lambda: "Failed to parse\nthe model")


class _Config:
    """Notes what it is told, and calls the progress monitor through `build`."""

    def __init__(self, trt: FakeTensorRt) -> None:
        self._trt = trt
        self.progress_monitor: Any = None
        self.num_compute_capabilities = 0
        self._timing: bytes = b""
        self.profiles: list[tuple[tuple[int, ...], ...]] = []

    def set_memory_pool_limit(self, pool: str, pool_size: int) -> None:
        self._trt.calls.append(("workspace", pool_size))

    def clear_flag(self, flag: str) -> None:
        self._trt.calls.append(("clear", flag))

    def set_compute_capability(self, compute_capability: str, index: int) -> bool:
        self._trt.calls.append(("capability", compute_capability, index))
        return True

    def create_timing_cache(self, serialized_timing_cache: bytes) -> bytes:
        return serialized_timing_cache

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        self._trt.calls.append(("timing cache", cache, ignore_mismatch))
        self._timing = cache
        return True

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: memoryview(self._timing + b" timed"))

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1


class _Builder:
    def __init__(self, trt: FakeTensorRt, logger: Any) -> None:
        self._trt, self._logger = trt, logger

    def create_network(self, flags: int) -> Any:
        self._trt.calls.append(("network", flags))
        trt = self._trt  # whose graph is parsed later
        return SimpleNamespace(
            num_inputs=1,
            num_outputs=1,
            get_input=lambda index: _Tensor("image", (-1, _planes(trt.graph, trt.channels), *trt.size)),
            get_output=lambda index: _Tensor("logits", (-1, trt.classes, *trt.size)),
        )

    def create_builder_config(self) -> _Config:
        return _Config(self._trt)

    def create_optimization_profile(self) -> Any:
        profile = SimpleNamespace(shapes=())
        profile.set_shape = lambda name, *shapes: setattr(profile, "shapes", shapes)
        return profile

    def build_serialized_network(self, network: Any, config: _Config) -> Any:
        if monitor := config.progress_monitor:
            monitor.phase_start("Building", None, 4)
            if not all(monitor.step_complete("Building", step) for step in range(4)):
                return None
            monitor.phase_finish("Building")
        if self._trt.fails:
            self._logger.log(Severity.ERROR, self._trt.fails)
            return None
        trt = self._trt
        planes, masks = _planes(trt.graph, trt.channels), trt.graph.startswith(DEPLOY)
        facts = [trt.__version__, planes, trt.classes, list(trt.size), trt.gain, config.profiles, masks]
        return memoryview(MAGIC + json.dumps(facts).encode())


class _Runtime:
    def __init__(self, trt: FakeTensorRt, logger: Any) -> None:
        self._trt, self._logger = trt, logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> _Engine | None:
        if not serialized_engine.startswith(MAGIC):
            self._logger.log(Severity.ERROR, "Magic tag does not match")
            return None
        if self._trt.fails:
            self._logger.log(Severity.ERROR, self._trt.fails)
            return None
        kind = _RtxEngine if self._trt.rtx else _Engine
        return kind(self._trt, *json.loads(serialized_engine[len(MAGIC) :])[1:])


class _Engine:
    num_io_tensors = 2

    def __init__(
        self, trt: FakeTensorRt, channels: int, classes: int, size: list[int], gain: float,
        profiles: list[list[list[int]]], masks: bool = False,
    ) -> None:  # fmt: skip
        self.trt, self.gain, self.profiles, self.masks = trt, gain, profiles, masks
        self.num_optimization_profiles = len(profiles)
        self.shapes = {"image": (-1, channels, *size), "logits": (-1, classes, *size)}

    def get_tensor_name(self, index: int) -> str:
        return ("image", "logits")[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == "image" else "output"

    def get_tensor_dtype(self, name: str) -> str:
        return "uint8" if self.masks else "float32"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def create_execution_context(self, strategy: int = 0) -> _Context:
        return _Context(self)


class _RtxEngine(_Engine):
    def create_runtime_config(self) -> _RuntimeConfig:
        return _RuntimeConfig()

    def create_execution_context(self, runtime_config: _RuntimeConfig | None = None) -> _Context:
        return _Context(self, runtime_config)


class _RuntimeConfig:
    """Of TensorRT-RTX: LAZY unless it is told otherwise, and no cache."""

    dynamic_shapes_kernel_specialization_strategy = "LAZY"
    cache: _RuntimeCache | None = None

    def create_runtime_cache(self) -> _RuntimeCache:
        return _RuntimeCache()

    def set_runtime_cache(self, cache: _RuntimeCache) -> bool:
        self.cache = cache
        return True


class _RuntimeCache:
    """Batch sizes whose kernels are compiled, as bytes."""

    kernels = b""

    def serialize(self) -> memoryview:
        return memoryview(self.kernels)

    def deserialize(self, blob: bytes) -> bool:
        self.kernels = bytes(blob)
        return True


class _Context:
    def __init__(self, engine: _Engine, config: _RuntimeConfig | None = None) -> None:
        self._engine, self._config = engine, config
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}
        self._profile = 0

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._profile = profile_index
        return 0 <= profile_index < len(self._engine.profiles)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        smallest, _, largest = self._engine.profiles[self._profile]
        self._shape = tuple(shape)
        return smallest[0] <= shape[0] <= largest[0] and list(shape[1:]) == smallest[1:]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return memory % ALIGNMENT == 0

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self._shape[0], *self._engine.shapes[name][1:])

    def execute_async_v3(self, stream_handle: int) -> bool:
        if not self._shape or len(self._addresses) < 2:
            return False
        self._compile()
        names = ("image", "logits")
        addresses = [self._addresses[name] for name in names]
        shapes = [self.get_tensor_shape(name) for name in names]
        gain, masks = np.float32(self._engine.gain), self._engine.masks
        dtype = np.dtype(self._engine.get_tensor_dtype("image"))
        self._engine.trt.executed.append((self._profile, shapes[0][0]))

        def work() -> None:
            batch, answer = (_array(*side, dtype) for side in zip(addresses, shapes, strict=True))
            values = TABLE[np.arange(3)[:, None, None], batch] if masks else batch
            logits = values.mean(axis=1, keepdims=True) * gain
            answer[...] = logits >= 0 if masks else logits

        touched = [
            (address, int(np.prod(shape)) * dtype.itemsize, name == "logits")
            for name, address, shape in zip(names, addresses, shapes, strict=True)
        ]
        self._engine.trt.driver.run(stream_handle, work, touched)
        return True

    def _compile(self) -> None:
        """What TensorRT-RTX does for a shape that it has not seen: EAGER compiles now, into the cache."""
        config = self._config
        if not isinstance(self._engine, _RtxEngine):
            return
        strategy = "LAZY" if config is None else config.dynamic_shapes_kernel_specialization_strategy
        known = b"" if config is None or config.cache is None else config.cache.kernels
        if bytes([self._shape[0]]) not in known:
            self._engine.trt.calls.append(("compiled", strategy, self._shape[0]))
            if config is not None and config.cache is not None:
                config.cache.kernels += bytes([self._shape[0]])


def _array(address: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    memory = (ctypes.c_uint8 * (int(np.prod(shape)) * dtype.itemsize)).from_address(address)
    return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)


def _planes(graph: bytes, channels: int) -> int:
    return 1 if graph.startswith(DEPLOY_GRAY) else channels
