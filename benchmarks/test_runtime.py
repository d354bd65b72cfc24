"""The runtime's own steps under pytest-benchmark, to compare versions of the code: a 1080p frame on its way.

Their ratios to bare inference and to other libraries: `python -m tumorseg_benchmarks.runtime_checks`.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tumorseg_benchmarks.runtime_checks.scenes import encoded, scene
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.images.read import decode_image
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.processing.preprocess import Preprocessor

KINDS = {"gray": False, "RGB": True}
SIZE = (1080, 1920)  # height, width


@pytest.fixture(params=KINDS)
def file(request: pytest.FixtureRequest, bundle: Bundle) -> bytes:
    """A PNG file in memory."""
    kind: str = request.param
    if KINDS[kind] and bundle.contract.channels == 1:
        pytest.skip("the network takes gray")
    return encoded(scene(bundle, *SIZE, colour=KINDS[kind], seed=0))


def test_decode(benchmark: BenchmarkFixture, file: bytes) -> None:
    """Bytes -> uint8 pixels."""
    benchmark.group = "decode"
    assert benchmark(decode_image, file, "frame").shape[:2] == SIZE


def test_preprocess(benchmark: BenchmarkFixture, bundle: Bundle, file: bytes) -> None:
    """Pixels -> float32 tensor."""
    benchmark.group = "preprocess"
    tensor = benchmark(Preprocessor(bundle.contract), decode_image(file, "frame"))
    assert tensor.shape == (bundle.contract.channels, bundle.contract.height, bundle.contract.width)


def test_decide(benchmark: BenchmarkFixture, bundle: Bundle, file: bytes, threads: int) -> None:
    """Logits -> masks and lesions at the frame's own size."""
    segmenter = Segmenter.open(bundle, threads=threads)
    prediction = segmenter.predict(decode_image(file, "frame"))
    benchmark.group = "decide"
    assert benchmark(segmenter.decide, prediction.frame, prediction.logits).masks.shape[1:] == SIZE
