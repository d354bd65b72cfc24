"""Stage `bench`: PyTorch's modes and a bundle as it serves, timed by the GPU's own clock; peaks, power."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch

from tumorseg_benchmarks.gpu_evidence.network import networks
from tumorseg_benchmarks.gpu_evidence.providers import PRECISIONS
from tumorseg_benchmarks.gpu_evidence.pytorch import LIMITS, SIZE, cuda_or_dry
from tumorseg_benchmarks.gpu_evidence.stage import Findings, Options
from tumorseg_benchmarks.latency.cpu_frequency import cpu_frequency_state
from tumorseg_benchmarks.latency.gpu_roofline import SIDES, measure_gpu_peaks
from tumorseg_benchmarks.latency.latency import LatencyStats, TimingPlan, measure
from tumorseg_benchmarks.latency.roofline import COPY_BYTES
from tumorseg_benchmarks.variants.gpu_served import ServedOnGpu
from tumorseg_benchmarks.variants.pytorch_gpu import MODES, PyTorchGpuSession
from tumorseg_runtime.backends import BACKENDS, has_artefact, open_session, why_unavailable
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import TumorsegError
from tumorseg_runtime.core.session import STREAM
from tumorseg_runtime.device.cache import find
from tumorseg_runtime.inference.gpu_masks import SETS
from tumorseg_runtime.parity.reference import load_golden

BATCHES = (1, 8)
ROUNDS, DRY_ROUNDS = 40, 8
Call = Callable[[int], dict[str, int]]


def run(options: Options, found: Findings) -> None:
    """Figures of each mode, compared with eager FP32 first: what differs is not timed."""
    device = cuda_or_dry(options, found)
    sides, nbytes = ((64, 128), 2**20) if options.dry else (SIDES, 4 * COPY_BYTES)
    for peak in measure_gpu_peaks(device.type, sides, nbytes):
        found.figures[f"peak {peak.precision}"] = (
            f"{peak.flops / 1e12:.3g} TFLOP/s ({peak.best}), {peak.bandwidth / 1e9:.3g} GB/s"
        )
    for name, model in networks(small=options.dry):
        for batch in BATCHES[:1] if options.dry else BATCHES:
            modes(name, model, batch, device, options, found)
    if options.dry:
        found.lacks("torch.compile and CUDA graphs of torch: they need a GPU")
    if options.bundle is None:
        found.lacks("a bundle as it serves: --bundle was not given")
    elif not options.dry:
        served(Bundle.open(options.bundle), found)
    found.figures["clocks and power"] = cpu_frequency_state()["gpu"]


def modes(
    name: str, model: torch.nn.Module, batch: int, device: torch.device, options: Options, found: Findings
) -> None:
    """PyTorch eager, channels_last, autocast, compiled and as a CUDA graph, in interleaved rounds."""
    images = np.random.default_rng(batch).standard_normal((batch, 3, SIZE, SIZE), np.float32)
    calls: dict[str, Call] = {}
    expected: Any = None
    for mode in (one for one in MODES if not (options.dry and one == "pytorch-compiled")):
        session = PyTorchGpuSession(copy.deepcopy(model), device.type, mode)
        logits = session.infer(images)
        expected = logits if expected is None else expected
        error = float(np.abs(logits - expected).max() / expected.std())
        limit = LIMITS[session.info.precision]
        found.check(f"{name}, batch {batch}, {mode}", error <= limit, f"error {error:.2g}, limit {limit:g}")
        if error <= limit:
            calls[mode] = _timed(session, images)
    note(calls, f"{name}, batch {batch}", DRY_ROUNDS if options.dry else ROUNDS, found)


def served(bundle: Bundle, found: Findings) -> None:
    """Every artefact that runs on a GPU's stream, as `Segmenter` serves with it; whether as a CUDA graph."""
    folder, golden = find(bundle), [one.pixels for one in load_golden(bundle)]
    for batch in BATCHES:
        calls: dict[str, Call] = {}
        what = f"{bundle.name}, batch {batch}, pixels to masks"
        for backend, spec in BACKENDS.items():
            if "cuda" not in spec.devices or why_unavailable(backend, "cuda"):
                continue
            for precision in PRECISIONS:
                if not has_artefact(bundle, backend, precision, folder):
                    continue
                try:
                    session = open_session(
                        bundle, backend=backend, device="cuda", precision=precision, device_folder=folder
                    )
                    fitting = [one for one in golden if one.ndim == 2 or session.input.channels != 1]
                    if STREAM in session.input.memory and fitting:
                        on_gpu = ServedOnGpu(cast(Any, session), bundle.contract)
                        images = [fitting[index % len(fitting)] for index in range(batch)]
                        on_gpu.serve(images)
                        found.figures[f"{what}, {backend} {precision}, CUDA graph"] = on_gpu.has_graph(batch)
                        calls[f"{backend} {precision}"] = _timed(on_gpu, images)
                except TumorsegError as error:
                    found.check(f"{bundle.name}, {backend} {precision}", False, str(error))
        note(calls, what, ROUNDS, found)


def note(calls: dict[str, Call], what: str, rounds: int, found: Findings) -> None:
    """Medians of milliseconds by stage."""
    if not calls:
        return
    for call in [*calls.values()] * SETS:
        call(0)  # what is compiled and captured for a size is no part of its time
    plan = TimingPlan(rounds=rounds, settle_s=0.0)
    for name, samples in measure(calls, plan, prime=False).items():
        found.figures[f"{what}, {name}"] = {
            stage: LatencyStats.of([sample.ms[stage] for sample in samples]).median for stage in samples[0].ms
        }


def _timed(session: Any, images: Any) -> Call:
    work = session.serve if isinstance(session, ServedOnGpu) else session.infer

    def call(number: int) -> dict[str, int]:
        start = time.perf_counter_ns()
        work(images)
        return {"infer": time.perf_counter_ns() - start, **session.parts}

    return call
