"""From the bytes of a 1080p PNG to its mask, against bare inference of the same network."""

from __future__ import annotations

import numpy as np

from tumorseg_benchmarks.latency.latency import PRIME_BELOW_S, LatencyStats, TimingPlan, measure
from tumorseg_benchmarks.reports.figure import STAGE, Figure, Progress, Target, median_ms, ratio, timed
from tumorseg_benchmarks.runtime_checks.raw_onnxruntime import RawOnnxRuntime
from tumorseg_benchmarks.runtime_checks.scenes import encoded, scene
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import OutputError
from tumorseg_runtime.images.read import decode_image
from tumorseg_runtime.inference.prediction import Prediction
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.processing.postprocess import masks_from_logits
from tumorseg_runtime.processing.preprocess import Preprocessor

HEIGHT, WIDTH = 1080, 1920
TARGETS = {"gray": Target(1.06), "RGB": Target(1.10)}


def measure_end_to_end(bundle: Bundle, threads: int, plan: TimingPlan, progress: Progress) -> list[Figure]:
    """Rounds of bare inference (twice: the second is the control), gray and RGB, in an order drawn anew."""
    kinds = ["gray", "RGB"] if bundle.contract.channels > 1 else ["gray"]
    files = {kind: encoded(scene(bundle, HEIGHT, WIDTH, colour=kind == "RGB", seed=0)) for kind in kinds}
    segmenter = Segmenter.open(bundle, threads=threads)
    raw, control = RawOnnxRuntime(bundle, threads), RawOnnxRuntime(bundle, threads)
    tensor = Preprocessor(bundle.contract)(decode_image(files["gray"], "gray"))[None]

    def predict(kind: str) -> Prediction:
        return segmenter.predict(decode_image(files[kind], kind))

    logits = raw.run(tensor)[0]
    if not np.array_equal(predict("gray").masks, masks_from_logits(logits, bundle.contract, HEIGHT, WIDTH)):
        raise OutputError("the segmenter and bare inference give other masks, expected the same: run parity")
    calls = {
        "bare": timed(lambda number: raw.run(tensor)),
        "control": timed(lambda number: control.run(tensor)),
        "gray": timed(lambda number: predict("gray").mask),
        "RGB": timed(lambda number: predict("RGB").mask),
    }
    calls = {name: call for name, call in calls.items() if name in files or name in ("bare", "control")}
    slowest = max(call(0)[STAGE] for call in calls.values()) / 1e9  # seconds; also the warm-up
    samples = measure(
        calls,
        plan,
        prime=slowest < PRIME_BELOW_S,
        progress=lambda number, _: progress(f"end to end: round {number + 1}/{plan.rounds}"),
    )
    base = samples["bare"]
    note = f"bare inference {median_ms(base):.1f} ms"
    figures = [ratio("bare inference against itself (control)", samples["control"], base, note=note)]
    for kind, target in TARGETS.items():
        if kind not in files:
            figures.append(Figure(f"{kind} PNG to mask / bare", None, "ratio", note="the network takes gray"))
            continue
        added = [ours.ms[STAGE] - theirs.ms[STAGE] for ours, theirs in zip(samples[kind], base, strict=True)]
        note = f"{LatencyStats.of(added).median:+.1f} ms; file of {len(files[kind]) / 1e6:.1f} MB"
        figures.append(ratio(f"{kind} 1080p PNG to mask / bare", samples[kind], base, target, note))
    return figures
