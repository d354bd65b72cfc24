"""What can be compared: every form of the network under everything that may run it.

The list is the same on every machine. A subject that cannot run here stays in every table, with the reason
in place of a number.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING

from tumorseg_runtime.backends import BACKENDS, open_session
from tumorseg_runtime.bundle import Bundle
from tumorseg_runtime.driver import why_no_driver
from tumorseg_runtime.errors import BackendError, BundleError
from tumorseg_runtime.session import Session

if TYPE_CHECKING:
    from tumorseg_train.run import Run

PYTORCH = "pytorch"


@dataclasses.dataclass(frozen=True)
class Subject:
    """One form of the network under one engine and device.

    label: for people. format: of the bundle's artefact, 'module' for PyTorch.
    engine: 'pytorch' or a backend of the runtime. device: as that backend names it.
    precision: 'fp32' or 'fp16'.
    """

    label: str
    format: str
    engine: str
    device: str
    precision: str

    @property
    def name(self) -> str:
        """Key in JSON, for example 'onnx-fp16-onnxruntime-cpu'."""
        return "-".join((self.format, self.precision, self.engine, self.device))

    @property
    def group(self) -> str:
        """'cpu' or 'gpu': only subjects of one group share rounds and are set against each other.

        A GPU that waits seconds for a CPU's turn drops its clocks, and would be timed cold.
        """
        return "cpu" if self.device == "cpu" else "gpu"


SUBJECTS = (
    Subject("PyTorch eager", "module", PYTORCH, "cpu", "fp32"),
    Subject("ONNX FP32, ONNX Runtime CPU", "onnx", "onnxruntime", "cpu", "fp32"),
    Subject("ONNX FP16, ONNX Runtime CPU", "onnx", "onnxruntime", "cpu", "fp16"),
    Subject("PyTorch eager CUDA", "module", PYTORCH, "cuda", "fp32"),
    Subject("ONNX FP32, ONNX Runtime CUDA", "onnx", "onnxruntime", "cuda", "fp32"),
    Subject("ONNX FP16, ONNX Runtime CUDA", "onnx", "onnxruntime", "cuda", "fp16"),
    Subject("ONNX FP32, ONNX Runtime TensorRT", "onnx", "onnxruntime", "tensorrt", "fp32"),
    Subject("ONNX FP16, ONNX Runtime TensorRT", "onnx", "onnxruntime", "tensorrt", "fp16"),
    Subject("TensorRT engine FP32", "engine", "tensorrt", "cuda", "fp32"),
    Subject("TensorRT engine FP16", "engine", "tensorrt", "cuda", "fp16"),
)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A subject on this machine: a session that is ready to run, or the reason why there is none.

    failed: nothing is missing on this machine, and yet it did not open.
    """

    subject: Subject
    session: Session | None
    reason: str = ""
    failed: bool = False


def why_not(subject: Subject, bundle: Bundle, run: Run | None) -> str | None:
    """None where the subject can be opened on this machine, else the reason in short."""
    if subject.group == "gpu" and (reason := why_no_driver()):
        return reason
    if subject.engine == PYTORCH:
        if run is None:
            return "no run was given (--run)"
        return _why_no_torch(subject.device)
    if subject.engine not in BACKENDS:
        return f"this version of tumorseg has no {subject.engine} backend"
    backend = importlib.import_module(BACKENDS[subject.engine])
    unavailable: str | None = backend.why_unavailable(subject.device)
    if unavailable:
        return unavailable
    there = [(artefact.format, artefact.precision) for artefact in bundle.artefacts]
    if (subject.format, subject.precision) not in there:
        return f"the bundle has no {subject.precision} {subject.format} artefact"
    return None


def _why_no_torch(device: str) -> str | None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no CUDA device"
    return None


def open_candidate(subject: Subject, bundle: Bundle, run: Run | None, threads: int | None) -> Candidate:
    """Open a subject; one that this machine cannot run, or that does not open, comes back with the reason.

    threads: CPU threads of one inference; PyTorch's are set for the whole process (`set_threads`).
    """
    reason = why_not(subject, bundle, run)
    if reason:
        return Candidate(subject, None, reason)
    if subject.engine == PYTORCH:
        assert run is not None  # why_not asked
        from tumorseg_benchmarks.pytorch import PyTorchSession

        return Candidate(subject, PyTorchSession(run.model(), subject.device))
    try:
        session = open_session(
            bundle,
            backend=subject.engine,
            device=subject.device,
            precision=subject.precision,
            threads=threads,
        )
    except (BackendError, BundleError) as error:
        return Candidate(subject, None, str(error), failed=True)
    return Candidate(subject, session)
