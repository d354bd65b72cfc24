"""Which variants this machine can run, and their sessions.

What was not exported, or cannot run here, is left out of the tables and named in one line for each reason
(`sort_out`). What should run and does not is a row, with the reason in place of a number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tumorseg_benchmarks.variants.third_party_baselines import open_baseline, open_pytorch, why_no_baseline
from tumorseg_benchmarks.variants.variants import BUILT, FORM, NOT_EXPORTED, PYTORCH, Variant
from tumorseg_runtime.backends import open_session, why_unavailable
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError
from tumorseg_runtime.core.session import STREAM, Session
from tumorseg_runtime.device.cache import find
from tumorseg_runtime.device.driver import why_no_driver
from tumorseg_runtime.device.engines import latest_engine

if TYPE_CHECKING:
    from tumorseg_runtime.device.on_stream import OnStream
    from tumorseg_train.networks.run import Run


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
        return why_no_baseline(variant, run)
    if variant.engine == PYTORCH:
        if run is None:
            return "no run was given (--run)"
        return _why_no_torch(variant.device)
    there = [(artefact.format, artefact.precision) for artefact in bundle.artefacts]
    if variant.format != BUILT and not any((one, variant.precision) in there for one in variant.formats):
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
        return Candidate(variant, open_pytorch(variant, run))
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
    if STREAM in form.memory:
        from tumorseg_benchmarks.variants.gpu_served import ServedOnGpu

        session = ServedOnGpu(cast("OnStream", session), bundle.contract)
    return Candidate(variant, session)


def _open_baseline(variant: Variant, run: Run | None, threads: int | None) -> Candidate:
    """What a stock tool raises has no class of ours: its first line is the reason."""
    assert run is not None  # why_not asked
    try:
        return Candidate(variant, open_baseline(variant, run, threads))
    except Exception as error:  # noqa: BLE001  # a stock tool may raise anything; the row reports it
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        return Candidate(variant, None, f"did not open: {reason}", failed=True)


def open_run(folder: Path | None) -> Run | None:
    """The run in a folder; only where one is given is torch imported."""
    if folder is None:
        return None
    from tumorseg_train.networks.run import Run

    return Run.open(folder)
