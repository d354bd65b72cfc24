"""Is this version slower than a saved one? `pytest benchmarks --save-baseline X`, then `--baseline X`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tumorseg_benchmarks.latency.regression import (
    Timing,
    read_baseline,
    regression,
    time_call,
    write_baseline,
)
from tumorseg_benchmarks.runtime_checks.scenes import encoded, scene
from tumorseg_benchmarks.variants.machine import cpu_model, set_threads
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.images.read import decode_image
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.processing.preprocess import Preprocessor

SIZE = (480, 640)  # height, width of the frame


def calls(bundle: Bundle, threads: int) -> dict[str, Callable[[], Callable[[], object]]]:
    """What opens each timed call, by name."""
    file = encoded(scene(bundle, *SIZE, colour=False, seed=0))
    pixels = decode_image(file, "frame")

    def decide() -> Callable[[], object]:
        segmenter = Segmenter.open(bundle, threads=threads)
        prediction = segmenter.predict(pixels)
        return lambda: segmenter.decide(prediction.frame, prediction.logits)

    def infer() -> Callable[[], object]:
        segmenter = Segmenter.open(bundle, threads=threads)
        return lambda: segmenter.predict(pixels)

    def preprocess() -> Callable[[], object]:
        preprocessor = Preprocessor(bundle.contract)
        return lambda: preprocessor(pixels)

    return {
        "decode": lambda: lambda: decode_image(file, "frame"),
        "preprocess": preprocess,
        "predict": infer,
        "decide": decide,
    }


def test_nothing_became_slower(pytestconfig: pytest.Config, bundle: Bundle, threads: int) -> None:
    saved, saving = pytestconfig.getoption("--baseline"), pytestconfig.getoption("--save-baseline")
    if not saved and not saving:
        pytest.skip("neither --baseline nor --save-baseline was given")
    set_threads(threads, torch_too=False)
    size = f"{bundle.contract.height}x{bundle.contract.width}"
    facts = {
        "cpu": cpu_model(Path("/proc/cpuinfo")),
        "network": f"{bundle.model['architecture']} {bundle.model['encoder']} {size}",
        "threads": str(threads),
    }
    old = read_baseline(Path(saved), facts) if saved else {}
    new: dict[str, Timing] = {name: time_call(opener) for name, opener in calls(bundle, threads).items()}
    if saving:
        write_baseline(Path(saving), facts, new)
    found = [
        f"{name} {line}" for name, one in new.items() if name in old and (line := regression(old[name], one))
    ]
    assert not found, "; ".join(found)
