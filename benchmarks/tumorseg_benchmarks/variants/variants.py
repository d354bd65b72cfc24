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
PYTORCH_BASELINES = ("pytorch-channels-last", "pytorch-compiled")
STOCK = "stock"  # the format of a plain export, which a stock runtime opens (`third_party_baselines`)
BUILT = "engine"  # the format of what `tumorseg build` leaves in the device folder
STAND_IN = {"mnn-exact": "mnn"}  # format -> the one that its backend opens where the first was not exported
NOT_EXPORTED = "not exported"
FORM = InputForm()  # float32 NCHW: what the preprocessor makes


@dataclasses.dataclass(frozen=True)
class Variant:
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
        """'cpu' or 'gpu': only variants of one group share rounds and are set against each other.

        A GPU that waits seconds for a CPU's turn drops its clocks, and would be timed cold.
        """
        return "cpu" if self.device == "cpu" else "gpu"

    @property
    def is_baseline(self) -> bool:
        """True for what is not of this project: it is timed beside it and never ranked."""
        return self.format == STOCK or self.engine in PYTORCH_BASELINES

    @property
    def needs_run(self) -> bool:
        """True where it is made from the run, and not from a file of the bundle."""
        return self.is_baseline or self.engine == PYTORCH


VARIANTS = (
    Variant("PyTorch eager", "module", PYTORCH, "cpu", "fp32"),
    Variant("ONNX FP32, ONNX Runtime CPU", "onnx", "onnxruntime", "cpu", "fp32"),
    Variant("ONNX FP16, ONNX Runtime CPU", "onnx", "onnxruntime", "cpu", "fp16"),
    Variant("ncnn FP32, CPU", "ncnn", "ncnn", "cpu", "fp32"),
    Variant("MNN FP32, CPU", "mnn", "mnn", "cpu", "fp32"),
    Variant("MNN FP32 exact, CPU", "mnn-exact", "mnn-exact", "cpu", "fp32"),
    Variant("OpenVINO FP32, CPU", "openvino", "openvino", "cpu", "fp32"),
    Variant("OpenVINO BF16, CPU", "openvino", "openvino", "cpu", "bf16"),
    Variant("PyTorch eager CUDA", "module", PYTORCH, "cuda", "fp32"),
    Variant("ONNX FP32, ONNX Runtime CUDA", "onnx", "onnxruntime", "cuda", "fp32"),
    Variant("ONNX FP16, ONNX Runtime CUDA", "onnx", "onnxruntime", "cuda", "fp16"),
    Variant("ONNX FP32, ONNX Runtime TensorRT", "onnx", "onnxruntime", "tensorrt", "fp32"),
    Variant("ONNX FP16, ONNX Runtime TensorRT", "onnx", "onnxruntime", "tensorrt", "fp16"),
    Variant("TensorRT-RTX engine FP16, of the bundle", "tensorrt-rtx", "tensorrt", "cuda", "fp16"),
    Variant("TensorRT engine FP32, of this device", BUILT, "tensorrt", "cuda", "fp32"),
    Variant("TensorRT engine FP16, of this device", BUILT, "tensorrt", "cuda", "fp16"),
)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A variant on this machine: a session that is ready to run, or the reason why there is none.

    failed: nothing is missing on this machine, and yet it did not open.
    """

    variant: Variant
    session: Session | None
    reason: str = ""
    failed: bool = False


def why_not(variant: Variant, bundle: Bundle, run: Run | None) -> str | None:
    """None where the variant is there and can be opened on this machine, else the reason in short.

    Nothing is imported before it is known to be needed: neither a GPU's packages without a driver, nor those
    of a backend whose artefact the bundle does not have.
    """
    if variant.group == "gpu" and (reason := why_no_driver()):
        return reason
    if variant.is_baseline:
        from tumorseg_benchmarks.variants.third_party_baselines import why_no_baseline

        return why_no_baseline(variant, run)
    if variant.engine == PYTORCH:
        if run is None:
            return "no run was given (--run)"
        return _why_no_torch(variant.device)
    there = [(artefact.format, artefact.precision) for artefact in bundle.artefacts]
    formats = (variant.format, STAND_IN.get(variant.format, variant.format))
    if variant.format != BUILT and not any((one, variant.precision) in there for one in formats):
        return f"{NOT_EXPORTED}: the bundle has no {variant.precision} {variant.format} artefact"
    return why_unavailable(variant.engine, variant.device)


def sort_out(
    variants: Sequence[Variant], bundle: Bundle, run: Run | None
) -> tuple[list[Variant], dict[str, list[str]]]:
    """Variants that can be tried here, and the labels of the others by their reason."""
    there: list[Variant] = []
    left_out: dict[str, list[str]] = {}
    for variant in variants:
        reason = why_not(variant, bundle, run)
        if reason is None:
            there.append(variant)
        else:
            short = "not in the bundle" if reason.startswith(NOT_EXPORTED) else reason
            left_out.setdefault(short, []).append(variant.label)
    return there, left_out


def _why_no_torch(device: str) -> str | None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no CUDA device"
    return None


def open_candidate(
    variant: Variant, bundle: Bundle, run: Run | None, threads: int | None, device_folder: Path | None = None
) -> Candidate:
    """Open a variant; one that this machine cannot run, or that does not open, comes back with the reason.

    threads: CPU threads of one inference, for variants of the CPU; PyTorch's are set for the whole process
        (`set_threads`).
    device_folder: where engines of this device lie; None for the one that is found.
    """
    reason = why_not(variant, bundle, run)
    if reason:
        return Candidate(variant, None, reason)
    if variant.engine == PYTORCH:
        assert run is not None  # why_not asked
        from tumorseg_benchmarks.variants.pytorch import PyTorchSession, StagedPyTorchSession

        kind = StagedPyTorchSession if variant.group == "gpu" else PyTorchSession
        return Candidate(variant, kind(run.model(), variant.device))
    if variant.is_baseline:
        return _open_baseline(variant, run, threads)
    folder = (device_folder or find(bundle)) if variant.format == BUILT else None
    try:
        if variant.format == BUILT and (
            folder is None or latest_engine(folder, bundle, variant.precision) is None
        ):
            return Candidate(variant, None, f"no {variant.precision} engine was built here (tumorseg build)")
        session = open_session(
            bundle,
            backend=variant.engine,
            device=variant.device,
            precision=variant.precision,
            threads=threads if variant.group == "cpu" else None,
            device_folder=folder,
        )
    except (BackendError, BundleError, InputError) as error:
        return Candidate(variant, None, str(error), failed=True)
    form = session.input
    if (form.dtype, form.layout) != (FORM.dtype, FORM.layout):
        return Candidate(variant, None, f"takes {form.dtype} {form.layout}, not {FORM.dtype} {FORM.layout}")
    return Candidate(variant, session)


def _open_baseline(variant: Variant, run: Run | None, threads: int | None) -> Candidate:
    """What a stock tool raises has no class of ours: its first line is the reason."""
    from tumorseg_benchmarks.variants.third_party_baselines import open_baseline

    assert run is not None  # why_not asked
    try:
        return Candidate(variant, open_baseline(variant, run, threads))
    except Exception as error:  # noqa: BLE001  # a stock tool may raise anything; the row reports it
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        return Candidate(variant, None, f"did not open: {reason}", failed=True)
