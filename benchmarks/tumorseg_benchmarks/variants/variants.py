"""What can be compared: every form of the network under everything that may run it.

The list is the same on every machine and for every bundle. What was not exported, or cannot run here, is
left out of the tables and named in one line for each reason (`sort_out`). What should run and does not is a
row, with the reason in place of a number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tumorseg_runtime.backends import open_session, why_unavailable
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError
from tumorseg_runtime.core.session import InputForm, Session
from tumorseg_runtime.device.cache import find
from tumorseg_runtime.device.driver import why_no_driver
from tumorseg_runtime.device.engines import latest_engine

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

PYTORCH = "pytorch"
PYTORCH_PEERS = ("pytorch-channels-last", "pytorch-compiled")
PEER = "stock"  # the format of a plain export, which a stock runtime opens (`third_party_baselines`)
BUILT = "engine"  # the format of what `tumorseg build` leaves in the device folder
STAND_IN = {"mnn-exact": "mnn"}  # format -> the one that its backend opens where the first was not exported
NOT_EXPORTED = "not exported"
FORM = InputForm()  # float32 NCHW: what the preprocessor makes


@dataclasses.dataclass(frozen=True)
class Subject:
    """One form of the network under one engine and device.

    label: for people. format: of the bundle's artefact, 'module' for PyTorch, 'engine' for one that was built
        on this device.
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

    @property
    def is_peer(self) -> bool:
        """True for what is not of this project: it is timed beside it and never ranked."""
        return self.format == PEER or self.engine in PYTORCH_PEERS

    @property
    def needs_run(self) -> bool:
        """True where it is made from the run, and not from a file of the bundle."""
        return self.is_peer or self.engine == PYTORCH


SUBJECTS = (
    Subject("PyTorch eager", "module", PYTORCH, "cpu", "fp32"),
    Subject("ONNX FP32, ONNX Runtime CPU", "onnx", "onnxruntime", "cpu", "fp32"),
    Subject("ONNX FP16, ONNX Runtime CPU", "onnx", "onnxruntime", "cpu", "fp16"),
    Subject("ncnn FP32, CPU", "ncnn", "ncnn", "cpu", "fp32"),
    Subject("MNN FP32, CPU", "mnn", "mnn", "cpu", "fp32"),
    Subject("MNN FP32 exact, CPU", "mnn-exact", "mnn-exact", "cpu", "fp32"),
    Subject("OpenVINO FP32, CPU", "openvino", "openvino", "cpu", "fp32"),
    Subject("OpenVINO BF16, CPU", "openvino", "openvino", "cpu", "bf16"),
    Subject("PyTorch eager CUDA", "module", PYTORCH, "cuda", "fp32"),
    Subject("ONNX FP32, ONNX Runtime CUDA", "onnx", "onnxruntime", "cuda", "fp32"),
    Subject("ONNX FP16, ONNX Runtime CUDA", "onnx", "onnxruntime", "cuda", "fp16"),
    Subject("ONNX FP32, ONNX Runtime TensorRT", "onnx", "onnxruntime", "tensorrt", "fp32"),
    Subject("ONNX FP16, ONNX Runtime TensorRT", "onnx", "onnxruntime", "tensorrt", "fp16"),
    Subject("TensorRT-RTX engine FP16, of the bundle", "tensorrt-rtx", "tensorrt", "cuda", "fp16"),
    Subject("TensorRT engine FP32, of this device", BUILT, "tensorrt", "cuda", "fp32"),
    Subject("TensorRT engine FP16, of this device", BUILT, "tensorrt", "cuda", "fp16"),
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
    """None where the subject is there and can be opened on this machine, else the reason in short.

    Nothing is imported before it is known to be needed: neither a GPU's packages without a driver, nor those
    of a backend whose artefact the bundle does not have.
    """
    if subject.group == "gpu" and (reason := why_no_driver()):
        return reason
    if subject.is_peer:
        from tumorseg_benchmarks.variants.third_party_baselines import why_no_peer

        return why_no_peer(subject, run)
    if subject.engine == PYTORCH:
        if run is None:
            return "no run was given (--run)"
        return _why_no_torch(subject.device)
    there = [(artefact.format, artefact.precision) for artefact in bundle.artefacts]
    formats = (subject.format, STAND_IN.get(subject.format, subject.format))
    if subject.format != BUILT and not any((one, subject.precision) in there for one in formats):
        return f"{NOT_EXPORTED}: the bundle has no {subject.precision} {subject.format} artefact"
    return why_unavailable(subject.engine, subject.device)


def sort_out(
    subjects: Sequence[Subject], bundle: Bundle, run: Run | None
) -> tuple[list[Subject], dict[str, list[str]]]:
    """Subjects that can be tried here, and the labels of the others by their reason."""
    there: list[Subject] = []
    left_out: dict[str, list[str]] = {}
    for subject in subjects:
        reason = why_not(subject, bundle, run)
        if reason is None:
            there.append(subject)
        else:
            short = "not in the bundle" if reason.startswith(NOT_EXPORTED) else reason
            left_out.setdefault(short, []).append(subject.label)
    return there, left_out


def _why_no_torch(device: str) -> str | None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no CUDA device"
    return None


def open_candidate(
    subject: Subject, bundle: Bundle, run: Run | None, threads: int | None, device_folder: Path | None = None
) -> Candidate:
    """Open a subject; one that this machine cannot run, or that does not open, comes back with the reason.

    threads: CPU threads of one inference, for subjects of the CPU; PyTorch's are set for the whole process
        (`set_threads`).
    device_folder: where engines of this device lie; None for the one that is found.
    """
    reason = why_not(subject, bundle, run)
    if reason:
        return Candidate(subject, None, reason)
    if subject.engine == PYTORCH:
        assert run is not None  # why_not asked
        from tumorseg_benchmarks.variants.pytorch import PyTorchSession, StagedPyTorchSession

        kind = StagedPyTorchSession if subject.group == "gpu" else PyTorchSession
        return Candidate(subject, kind(run.model(), subject.device))
    if subject.is_peer:
        return _open_peer(subject, run, threads)
    folder = (device_folder or find(bundle)) if subject.format == BUILT else None
    try:
        if subject.format == BUILT and (
            folder is None or latest_engine(folder, bundle, subject.precision) is None
        ):
            return Candidate(subject, None, f"no {subject.precision} engine was built here (tumorseg build)")
        session = open_session(
            bundle,
            backend=subject.engine,
            device=subject.device,
            precision=subject.precision,
            threads=threads if subject.group == "cpu" else None,
            device_folder=folder,
        )
    except (BackendError, BundleError, InputError) as error:
        return Candidate(subject, None, str(error), failed=True)
    form = session.input
    if (form.dtype, form.layout) != (FORM.dtype, FORM.layout):
        return Candidate(subject, None, f"takes {form.dtype} {form.layout}, not {FORM.dtype} {FORM.layout}")
    return Candidate(subject, session)


def _open_peer(subject: Subject, run: Run | None, threads: int | None) -> Candidate:
    """What a stock tool raises has no class of ours: its first line is the reason."""
    from tumorseg_benchmarks.variants.third_party_baselines import open_peer

    assert run is not None  # why_not asked
    try:
        return Candidate(subject, open_peer(subject, run, threads))
    except Exception as error:  # noqa: BLE001  # a stock tool may raise anything; the row reports it
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        return Candidate(subject, None, f"did not open: {reason}", failed=True)
