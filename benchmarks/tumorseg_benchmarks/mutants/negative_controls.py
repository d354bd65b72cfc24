"""Artefacts that are right, in every form in which they serve: an alarm on one of them is a false one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from tumorseg_benchmarks.mutants.testbed import DEEPLAB, UNET, UNETPP, BedNetwork, TestBed
from tumorseg_runtime.backends import BACKENDS, open_session, why_unavailable
from tumorseg_runtime.backends.onnxruntime_sessions import OnnxRuntimeSession
from tumorseg_runtime.core.session import LOGITS, Session, SessionInfo

ONNX_RUNTIME = "onnxruntime"
LEVELS = {
    "off": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
FEWEST = 90  # with fewer, no false alarm would say little
OTHERS = tuple(
    name
    for name, spec in BACKENDS.items()
    if name != ONNX_RUNTIME and spec.output == LOGITS and "cpu" in spec.devices
)


@dataclasses.dataclass(frozen=True)
class NegativeControl:
    """One form. level: of ONNX Runtime's graph optimisation, None elsewhere. batch: images per call."""

    network: str
    backend: str
    precision: str
    threads: int
    batch: int
    level: str | None = None

    @property
    def name(self) -> str:
        """In words."""
        level = f", optimisation {self.level}" if self.level else ""
        return (
            f"{self.network} {self.precision} under {self.backend}{level}, threads {self.threads}, "
            f"batch {self.batch}"
        )

    def open(self, network: BedNetwork) -> Session:
        """A session of exactly this form; an OutputError or BackendError of it is an alarm, too."""
        if self.level is None:
            return open_session(
                network.bundle, backend=self.backend, precision=self.precision, threads=self.threads
            )
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[self.level])
        artefact = network.bundle.artefact("onnx", self.precision)
        opened = onnxruntime.InferenceSession(
            str(network.bundle.root / artefact.file), options, providers=["CPUExecutionProvider"]
        )
        info = SessionInfo(ONNX_RUNTIME, "cpu", self.precision, {ONNX_RUNTIME: str(onnxruntime.__version__)})
        return OnnxRuntimeSession(opened, info)


def all_controls(test_bed: TestBed) -> list[NegativeControl]:
    """The forms of its networks whose artefact the exporter sealed."""
    return [
        one
        for one in all_forms()
        if one.network in test_bed.networks
        and not {one.backend, f"onnx-{one.precision}"} & set(test_bed.networks[one.network].refused)
    ]


def all_forms() -> Iterator[NegativeControl]:
    """Every level of optimisation, number of threads, batch and backend for the U-Net, parts of it for the
    other two networks."""
    for level in LEVELS:
        for batch in (1, 4):
            yield from (
                NegativeControl(network, ONNX_RUNTIME, "fp32", threads, batch, level)
                for network in (UNET, UNETPP)
                for threads in (1, 2)
            )
            yield from (
                NegativeControl(network, ONNX_RUNTIME, "fp16", 2, batch, level) for network in (UNET, UNETPP)
            )
            yield NegativeControl(DEEPLAB, ONNX_RUNTIME, "fp32", 2, batch, level)
        yield NegativeControl(DEEPLAB, ONNX_RUNTIME, "fp16", 2, 3, level)
    for backend in OTHERS:
        for batch in (1, 4):
            yield from (
                NegativeControl(network, backend, "fp32", threads, batch)
                for network in (UNET, UNETPP)
                for threads in (1, 2)
            )
        yield from (NegativeControl(DEEPLAB, backend, "fp32", threads, 3) for threads in (1, 2))


def missing_backends() -> dict[str, str]:
    """Backends that cannot run here, with the reason."""
    found = {backend: why_unavailable(backend, "cpu") for backend in OTHERS}
    return {backend: reason for backend, reason in found.items() if reason}
