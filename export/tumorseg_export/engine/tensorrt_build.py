"""From an ONNX file to an engine: one path for TensorRT 10.3 to 11.x and TensorRT-RTX.

The network is always strongly typed: its precision is that of the ONNX file, and no flag changes it. Only
names that all of these versions share are used. Needs neither torch nor onnx.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError, TumorsegError
from tumorseg_runtime.core.progress import Lines
from tumorseg_runtime.core.stop import postponed
from tumorseg_runtime.device.engines import Profile
from tumorseg_runtime.device.tensorrt_log import collecting_logger, out_of_memory, why

MEBIBYTE = 2**20
CAPABILITIES = (75, 80, 86, 89, 120)  # RTX 20, A100, RTX 30, RTX 40, RTX 50
PROFILE = Profile(1, 4, 8)
Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class RtxOptions:
    """What may be chosen for the target tensorrt-rtx: compute capabilities (89 for 8.9) and batch sizes."""

    capabilities: tuple[int, ...] = CAPABILITIES
    profile: Profile = PROFILE


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """How to build.

    profile: batch sizes. capabilities: compute capabilities, 89 for 8.9; empty for the GPU at hand.
    workspace_mb: limit on scratch memory in MiB, None for what there is.
    timing_cache: what an earlier build measured; b'' begins one, None keeps none.
    smallest_too: tune for the smallest batch, too, in a profile of its own behind the first.
    """

    profile: Profile
    capabilities: tuple[int, ...] = ()
    workspace_mb: int | None = None
    timing_cache: bytes | None = None
    smallest_too: bool = False

    def __post_init__(self) -> None:
        if self.workspace_mb is not None and self.workspace_mb < 1:
            raise InputError(f"workspace is {self.workspace_mb} MiB, expected 1 or more: or leave it out")


@dataclasses.dataclass(frozen=True)
class BuiltEngine:
    """A serialised engine, and the timing cache after its build (None where none was kept)."""

    data: bytes
    timing_cache: bytes | None


def build_engine(
    trt: Any, onnx_file: bytes, contract: Contract, options: BuildOptions, log: Log, *, name: str
) -> BuiltEngine:
    """Build an engine with the package `trt`.

    name: of the ONNX file, for messages. log: called with lines of progress where the package reports it.
    A signal cancels the build where the package has a progress monitor.
    Raises BundleError for a file that does not parse or is not the contract's network, InputError for a
    capability that the package does not know, BackendError where the build fails; out of memory is said so.
    """
    with postponed() as stopping:  # TensorRT swallows what its callbacks raise
        return _build(trt, onnx_file, contract, options, log, stopping, name)


def _build(
    trt: Any,
    onnx_file: bytes,
    contract: Contract,
    options: BuildOptions,
    log: Log,
    stopping: Callable[[], bool],
    name: str,
) -> BuiltEngine:
    logger = collecting_logger(trt)
    builder = trt.Builder(logger)
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # implied from 11 on
    network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx_file):
        first = parser.get_error(0) if parser.num_errors else None
        reason = " ".join(first.desc().split()) if first else "it gave no reason"
        raise BundleError(
            f"{name}: {trt.__name__} {trt.__version__} cannot parse it ({reason}), expected a whole ONNX "
            "file: export the bundle again"
        )
    _check_network(network, contract, name)
    config = builder.create_builder_config()
    _clear_tf32(trt, config)
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb * MEBIBYTE)
    profile = options.profile
    _add_profile(builder, config, network, contract, profile)
    if options.smallest_too and profile.smallest < profile.tuned:
        smallest = Profile(*[profile.smallest] * 3)
        _add_profile(builder, config, network, contract, smallest)
    if options.capabilities:
        _set_capabilities(trt, config, options.capabilities)
    if options.timing_cache is not None:
        config.set_timing_cache(config.create_timing_cache(options.timing_cache), False)
    monitor = _monitor(trt, log, stopping) if hasattr(trt, "IProgressMonitor") else None
    if monitor is not None:
        config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.failed:
        raise monitor.failed[0]
    if plan is None:
        raise BackendError(_failure(trt, logger, options, name))
    timing = None if options.timing_cache is None else bytes(config.get_timing_cache().serialize())
    return BuiltEngine(bytes(plan), timing)


def known_capabilities(trt: Any) -> dict[int, Any]:
    """Compute capabilities that the package builds for ahead of time, by number; none for TensorRT."""
    names = [name for name in dir(getattr(trt, "ComputeCapability", None)) if name.startswith("SM")]
    numbers = sorted(int(name[2:]) for name in names)
    return {number: getattr(trt.ComputeCapability, f"SM{number}") for number in numbers}


def _check_network(network: Any, contract: Contract, name: str) -> None:
    sizes = (contract.height, contract.width)
    expected = ([(-1, contract.channels, *sizes)], [(-1, len(contract.classes), *sizes)])
    got = tuple(
        [tuple(get(index).shape) for index in range(count)]
        for get, count in (
            (network.get_input, network.num_inputs),
            (network.get_output, network.num_outputs),
        )
    )
    if got != expected:
        raise BundleError(
            f"{name}: takes and gives {got}, expected {expected} (-1 is the batch): export the bundle again"
        )


def _clear_tf32(trt: Any, config: Any) -> None:
    """FP32 shall be FP32: TensorRT rounds factors to 10 bits (TF32) unless told not to."""
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)


def _add_profile(builder: Any, config: Any, network: Any, contract: Contract, profile: Profile) -> None:
    entry = builder.create_optimization_profile()
    shapes = [
        (batch, contract.channels, contract.height, contract.width)
        for batch in (profile.smallest, profile.tuned, profile.largest)
    ]
    entry.set_shape(network.get_input(0).name, *shapes)
    if config.add_optimization_profile(entry) < 0:
        raise InputError(f"TensorRT refuses the batch profile {profile}: choose another")


def _set_capabilities(trt: Any, config: Any, wanted: tuple[int, ...]) -> None:
    known = known_capabilities(trt)
    if unknown := [one for one in wanted if one not in known]:
        raise InputError(
            f"compute capability {', '.join(map(str, unknown))} is unknown to {trt.__name__} "
            f"{trt.__version__}, expected of {', '.join(map(str, known)) or 'none'}: leave it out; its GPUs "
            "build their own engine (tumorseg build)"
        )
    config.num_compute_capabilities = len(wanted)
    for index, one in enumerate(wanted):
        if not config.set_compute_capability(known[one], index):
            raise InputError(f"{trt.__name__} refuses compute capability {one} here: leave it out")


def _failure(trt: Any, logger: Any, options: BuildOptions, name: str) -> str:
    if not out_of_memory(logger):
        return (
            f"{name}: {trt.__name__} {trt.__version__} built no engine ({why(logger)}), "
            "expected one: try another version of it"
        )
    limit = "no limit" if options.workspace_mb is None else f"{options.workspace_mb} MiB"
    return (
        f"{name}: {trt.__name__} {trt.__version__} built no engine ({why(logger)}), workspace was {limit}: "
        "set a smaller --workspace or --batch, or end other programs on the GPU"
    )


def _monitor(trt: Any, log: Log, stopping: Callable[[], bool]) -> Any:
    """A progress monitor that tells of each phase of the build what is left of it, and cancels the build."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # TensorRT's class, which is Any here
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, tuple[Lines, int]] = {}
            self.failed: list[TumorsegError] = []  # of the log, such as a closed output

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases[phase_name] = Lines(phase_name, log), num_steps

        def phase_finish(self, phase_name: str) -> None:
            self.phases.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.phases:
                tell, steps = self.phases[phase_name]
                try:
                    tell((step + 1) / steps)
                except TumorsegError as error:
                    self.failed.append(error)
            return not (self.failed or stopping())

    return Monitor()
