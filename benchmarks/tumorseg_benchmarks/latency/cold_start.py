"""A variant in a process of its own: from the start of the process to its first logits, and its peak memory.

`measure_cold` starts `python -m tumorseg_benchmarks.latency.cold_start`, which opens one variant, runs
golden images and prints what it took. Linux only: the peak is `VmHWM` of /proc, the clock is one for all
processes.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tumorseg_benchmarks.latency.rows import BenchRow
from tumorseg_benchmarks.variants.variants import STOCK, Variant
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.cli.terminal import say_text
from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.core.progress import duration
from tumorseg_runtime.core.records import Fields, Format

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

STARTS = 3  # processes of each variant
CALLS = 3  # inferences of each; the first reaches the peak of memory
TIMEOUT_S = 900
_FORMAT = Format("line of figures", "run it by hand to see why", error=BackendError, max_bytes=2**16)
_FIELDS = Fields(
    load_ms=float, first_ms=float, later_ms=float, logits_ns=int, peak_mb=float, gpu_mb=(float, None)
)
FIGURES = ("start_ms", "load_ms", "first_ms", "later_ms")


@dataclasses.dataclass(frozen=True)
class ColdStart:
    """Medians over the processes, of one image.

    start_ms: from the start of the process to the first logits, imports included. load_ms: opening the
    artefact, its backend's import included. first_ms, later_ms: the first inference and the last one.
    peak_mb: largest resident memory over the processes. gpu_mb: GPU memory that came into use; None without.
    """

    start_ms: float
    load_ms: float
    first_ms: float
    later_ms: float
    peak_mb: float
    gpu_mb: float | None


def measure_cold(
    bundle: Bundle, run: Run | None, variant: Variant, threads: int, device_folder: Path | None = None
) -> ColdStart:
    """Start the variant in fresh processes, one after the other; raises BackendError where one fails."""
    command = [sys.executable, "-m", "tumorseg_benchmarks.latency.cold_start", str(bundle.root), variant.name]
    command += ["--threads", str(threads)]
    command += ["--run", str(run.root)] if run else []
    command += ["--device-folder", str(device_folder)] if device_folder else []
    found = []
    for _ in range(STARTS):
        begun = time.monotonic_ns()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise BackendError(
                f"{variant.label}: took more than {TIMEOUT_S} s in a process of its own, expected less"
            ) from error
        if done.returncode:
            last = (done.stderr.strip() or f"no message, status {done.returncode}").splitlines()[-1]
            raise BackendError(f"{variant.label}: failed in a process of its own: {last}")
        last = (done.stdout.strip() or "nothing").splitlines()[-1]
        values = _FORMAT.parse(last, f"{variant.label}: what a process of its own ended with", _FIELDS)
        found.append({**values, "start_ms": (values["logits_ns"] - begun) / 1e6})
    middle = {name: statistics.median(one[name] for one in found) for name in FIGURES}
    gpu = [one["gpu_mb"] for one in found if one["gpu_mb"] is not None]
    peak = max(one["peak_mb"] for one in found)
    return ColdStart(**middle, peak_mb=peak, gpu_mb=max(gpu) if gpu else None)


def _peak_mb(process: str = "self") -> float:
    """Largest resident memory of the process and, added to it, of each process that it started."""
    root = Path("/proc") / process
    lines = (root / "status").read_text(encoding="utf-8").splitlines()
    peak = next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))
    children = [name for file in root.glob("task/*/children") for name in file.read_text().split()]
    return peak + sum(_peak_mb(name) for name in children)


def _gpu_used_mb(variant: Variant) -> float | None:
    if variant.group != "gpu":
        return None
    from tumorseg_benchmarks.latency.cpu_frequency import cpu_frequency_state

    used = cpu_frequency_state()["gpu"]
    value = used.get("used_mb") if isinstance(used, dict) else None
    return value if isinstance(value, float) else None


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("name")
@click.option("--threads", default=1, type=int)
@click.option("--run", "run_folder", type=click.Path(path_type=Path))
@click.option("--device-folder", type=click.Path(path_type=Path))
def main(bundle: Path, name: str, threads: int, run_folder: Path | None, device_folder: Path | None) -> None:
    """Open the variant NAME of BUNDLE, run it, and print one line of JSON."""
    import numpy as np

    from tumorseg_benchmarks.variants.candidates import open_candidate, open_run
    from tumorseg_benchmarks.variants.inputs import golden_inputs
    from tumorseg_benchmarks.variants.machine import set_threads
    from tumorseg_benchmarks.variants.third_party_baselines import THIRD_PARTY_BASELINES
    from tumorseg_benchmarks.variants.variants import VARIANTS
    from tumorseg_runtime.processing.preprocess import Preprocessor

    opened = Bundle.read_index(bundle)
    variant = next(one for one in (*VARIANTS, *THIRD_PARTY_BASELINES) if one.name == name)
    before = _gpu_used_mb(variant)
    run = open_run(run_folder) if variant.needs_run else None
    set_threads(threads, torch_too=variant.needs_run)
    image = golden_inputs(opened)[0]
    batch = np.ascontiguousarray(Preprocessor(opened.contract)(image.pixels(), image.name)[None])
    start = time.monotonic_ns()
    candidate = open_candidate(variant, opened, run, threads, device_folder)
    if candidate.session is None:
        raise click.ClickException(candidate.reason)
    marks = [time.monotonic_ns()]
    for _ in range(CALLS):
        candidate.session.infer(batch)
        marks.append(time.monotonic_ns())
    after = _gpu_used_mb(variant)
    values: dict[str, Any] = {
        "load_ms": (marks[0] - start) / 1e6,
        "first_ms": (marks[1] - marks[0]) / 1e6,
        "later_ms": (marks[-1] - marks[-2]) / 1e6,
        "logits_ns": marks[1],
        "peak_mb": _peak_mb(),
        "gpu_mb": None if after is None or before is None else after - before,
    }
    say_text(json.dumps(values))


def start_cold(
    bundle: Bundle,
    run: Run | None,
    rows: Sequence[BenchRow],
    threads: int,
    device_folder: Path | None,
    log: Callable[[str], None],
) -> tuple[dict[str, ColdStart], dict[str, str]]:
    """Cold-start figures by the name of each variant that was timed, and why others have none."""
    timed: dict[str, Variant] = {
        row.variant.name: row.variant for row in rows if row.status == "measured" and row.role != "control"
    }
    found: dict[str, ColdStart] = {}
    failed: dict[str, str] = {}
    started = time.monotonic()
    for number, (name, variant) in enumerate(timed.items()):
        if variant.format == STOCK:
            failed[name] = f"{variant.label}: not started alone, since that would measure its conversion"
            continue
        passed = time.monotonic() - started
        left = f", {duration(passed * (len(timed) / number - 1))} left" if number else ""
        log(f"cold start {number + 1}/{len(timed)}{left}: {variant.label}")
        try:
            found[name] = measure_cold(bundle, run, variant, threads, device_folder)
        except BackendError as error:
            failed[name] = str(error)
    return found, failed


if __name__ == "__main__":
    main()
