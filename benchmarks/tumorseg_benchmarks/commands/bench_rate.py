"""`tumorseg bench --rate`: the work of it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tumorseg_benchmarks.latency.rate import MAX_PENDING, RateRun, highest_rate, read_sensors, run_rate
from tumorseg_benchmarks.reports.report import to_json, variant_facts, write_report
from tumorseg_benchmarks.variants.machine import load_average, machine_facts
from tumorseg_runtime.bundle.bundle import GOLDEN_FOLDER, Bundle
from tumorseg_runtime.cli.options import Options
from tumorseg_runtime.cli.terminal import say_text
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.inference.stream import StreamResult
from tumorseg_runtime.outputs.image_files import list_images

OF_RATE = (
    *("bundle", "rate", "seconds", "backend", "precision", "threads_text", "images", "max_images"),
    *("out", "as_json", "quiet"),
)  # the parameters of `tumorseg bench` that go with --rate
TRIAL = 0.1  # of the seconds: each trial of the bisection
LEAST_TRIAL_S = 5.0
LEAST_FRAMES = 20  # of a trial, however long that takes
BOUND = 1.5  # the search begins at so many times the rate of one frame after the other


def bench_rate(
    options: Options,
    bundle: Path,
    rate: float,
    seconds: float,
    backend: str,
    precision: str | None,
    threads: int,
    images: Sequence[Path],
    max_images: int,
    out: Path,
) -> None:
    """Run frames at the rate, then look for the highest that holds; writes rate.json and rate.md."""
    opened = Bundle.open(bundle)
    golden = [bundle / GOLDEN_FOLDER / f"{name}.png" for name in opened.golden]
    paths = list_images(tuple(images))[:max_images] if images else golden
    before = load_average()
    with Segmenter.open(opened, backend=backend, precision=precision, threads=threads) as segmenter:
        warm = [len(segmenter.predict(path).masks) for path in paths]  # also: each holds one frame

        def stream(frames: Iterable[Path]) -> Iterator[StreamResult]:
            return segmenter.stream(frames, max_pending=MAX_PENDING, drop="oldest")

        def trial(at: float) -> bool:
            run = run_rate(stream, paths, at, max(LEAST_TRIAL_S, TRIAL * seconds, LEAST_FRAMES / at))
            options.log(f"{at:.3g} frames/s: {run.dropped} of {run.frames} dropped")
            return run.held

        options.log(f"{rate:g} frames/s for {seconds:g} s on {segmenter.info.backend}, {len(warm)} images")
        run = run_rate(stream, paths, rate, seconds, sensors=read_sensors)
        start = time.perf_counter()
        segmenter.predict(paths[0])
        best, failed = highest_rate(trial, BOUND / (time.perf_counter() - start))
        info = segmenter.info
    values: dict[str, Any] = {
        "schema": 1,
        "kind": "rate",
        "machine": machine_facts(),
        "load_average": {"before": before, "after": load_average()},
        **variant_facts(opened, None),
        "session": {"backend": info.backend, "device": info.device, "precision": info.precision},
        "seconds": seconds,
        "run": {**dataclasses.asdict(run), "held": run.held},
        "highest": {"held": best, "not_held": failed, "trial_s": max(LEAST_TRIAL_S, TRIAL * seconds)},
    }
    text = "\n".join(lines(run, values)) + "\n"
    write_report(out, "rate", values, text)
    say_text(to_json(values) if options.as_json else text, nl=False)
    state = "held" if run.held else f"not held, {run.dropped} of {run.frames} dropped"
    options.verdict(f"{bundle}: {rate:g} frames/s {state}; highest that holds: {best:.3g}")


def lines(run: RateRun, values: dict[str, Any]) -> Iterator[str]:
    """The report for people."""
    session, highest = values["session"], values["highest"]
    yield f"{session['backend']} {session['device']} {session['precision']}, {run.rate:g} frames/s:"
    yield f"{run.frames} frames: {run.judged} judged, {run.dropped} dropped, {run.failed} failed"
    for name, figures in (("delay", run.delay_ms), ("jitter", run.jitter_ms)):
        known = [f"{key.replace('_', '.')} {v:.1f}" for key, v in figures.items() if v is not None]
        few = [key.replace("_", ".") for key, value in figures.items() if value is None]
        rest = f" (too few frames for {', '.join(few)})" if few else ""
        yield f"{name}, ms: {', '.join(known) or 'none'}{rest}"
    for name, found in (("waiting", run.waiting), ("under way", run.under_way)):
        yield f"{name} when a frame arrives: mean {found['mean']:.2f}, most {found['max']:.0f}"
    yield f"source behind its clock: at most {run.late_ms:.1f} ms"
    read = [f"{name} {low:.1f} to {high:.1f}" for name, (low, high) in run.sensors.items()]
    yield f"temperature, watts: {'; '.join(read) or 'not readable here'}"
    above = "the highest tried" if highest["not_held"] is None else f"{highest['not_held']:.3g} does not hold"
    trial = f"{highest['trial_s']:g} s and {LEAST_FRAMES} frames"
    yield f"highest rate without a drop, in trials of {trial} at least: {highest['held']:.3g}/s ({above})"
