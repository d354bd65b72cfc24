"""Throughput of `Segmenter.predict_each` over image files, against a bare loop of the same batches."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from tumorseg_benchmarks.latency.latency import MIN_ROUNDS, TimingPlan, measure
from tumorseg_benchmarks.reports.figure import Figure, Progress, Target, median_ms, ratio, timed
from tumorseg_benchmarks.runtime_checks.raw_onnxruntime import RawOnnxRuntime
from tumorseg_benchmarks.runtime_checks.scenes import scene
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.read import read_image, write_png
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.processing.preprocess import Preprocessor

TARGET = Target(0.97, at_least=True)
SIZES = ((512, 512), (471, 562), (500, 760))  # of the files, as in the public datasets


def measure_throughput(
    bundle: Bundle, threads: int, files: int, plan: TimingPlan, progress: Progress
) -> list[Figure]:
    """Each round takes the next share of the files, once through `predict_each` and once through bare loops:
    in the very batches of the segmenter, and image by image. The tensors of the loops are made beforehand."""
    share = files // plan.rounds
    if plan.rounds < MIN_ROUNDS or share < 1:
        raise InputError(f"files is {files}, expected at least {plan.rounds}, one for each round")
    segmenter = Segmenter.open(bundle, threads=threads)
    raw, preprocess = RawOnnxRuntime(bundle, threads), Preprocessor(bundle.contract)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.png" for index in range(share * plan.rounds)]
        for index, path in enumerate(paths):
            write_png(path, scene(bundle, *SIZES[index % len(SIZES)], colour=False, seed=index))

        def loop(number: int, size: int) -> int:
            """Infer the ready tensors of a round in batches of `size`."""
            tensors = ready[number]
            return sum(len(raw.run(tensors[start : start + size])) for start in range(0, len(tensors), size))

        def predict(number: int) -> int:
            chosen = paths[number * share : (number + 1) * share]
            return sum(prediction.masks.shape[0] for prediction in segmenter.predict_each(chosen))

        ready = {
            number: np.stack(
                [preprocess(read_image(path)) for path in paths[number * share : (number + 1) * share]]
            )
            for number in range(plan.rounds)
        }
        calls = {
            "predict": timed(predict),
            "batches": timed(lambda number: loop(number, segmenter.batch_size)),
            "singles": timed(lambda number: loop(number, 1)),
        }
        segmenter.predict(paths[: segmenter.batch_size])
        raw.run(ready[0][:1])
        samples = measure(
            calls,
            plan,
            prime=False,
            progress=lambda number, _: progress(f"throughput: round {number + 1}/{plan.rounds}"),
        )
    ours, batches, singles = (samples[name] for name in ("predict", "batches", "singles"))
    rate = 1000 * share / median_ms(ours)
    size = segmenter.batch_size
    note = f"{len(paths)} files, {rate:.2f} images/s, batches of {size}"
    # images per second are the inverse of the time, so the ratio of rates is that of the times turned round
    return [
        ratio(f"predict / bare loop in batches of {size}", batches, ours, TARGET, note),
        ratio("predict / bare loop of single images", singles, ours, None, note),
    ]
