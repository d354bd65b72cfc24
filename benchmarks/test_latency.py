"""Latency under pytest-benchmark: `pytest benchmarks --benchmark-enable [--bundle DIR --run DIR]`.

Each variant is timed alone, one after the other, so that results can be saved and compared between
versions of the code (`--benchmark-autosave`, `--benchmark-compare`). To set variants against each other use
`tumorseg bench`, whose rounds are interleaved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tumorseg_benchmarks.latency.latency import MIN_ROUNDS
from tumorseg_benchmarks.latency.stages import staged_call
from tumorseg_benchmarks.parity.parity import check_provenance, compare
from tumorseg_benchmarks.parity.references import golden_reference
from tumorseg_benchmarks.variants.candidates import open_candidate
from tumorseg_benchmarks.variants.machine import set_threads
from tumorseg_benchmarks.variants.variants import VARIANTS, Variant
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.session import Session
from tumorseg_runtime.processing.preprocess import Preprocessor

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

BATCHES = (1, 4)


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda variant: variant.name)
def session(request: pytest.FixtureRequest, bundle: Bundle, run: Run | None, threads: int) -> Session:
    """One variant, ready and right; skipped where this machine cannot run it."""
    variant: Variant = request.param
    if run is not None:
        check_provenance(bundle, run)
    candidate = open_candidate(variant, bundle, run, threads)
    if candidate.session is None:
        pytest.skip(f"not measured: {candidate.reason}")
    set_threads(threads, torch_too=run is not None)
    report = compare(candidate.session, variant.label, golden_reference(bundle), bundle.contract)
    assert report.passed, f"a wrong answer has no speed: {report.breaches}"
    return candidate.session


@pytest.mark.parametrize("batch", BATCHES)
def test_infer(benchmark: BenchmarkFixture, session: Session, bundle: Bundle, batch: int) -> None:
    """Batch in host memory -> logits in host memory."""
    preprocess = Preprocessor(bundle.contract)
    images = golden_reference(bundle).images
    tensors = np.stack([preprocess(images[index % len(images)].pixels()) for index in range(batch)])
    benchmark.group = f"infer, batch {batch}"
    logits = benchmark.pedantic(session.infer, args=(tensors,), rounds=MIN_ROUNDS, warmup_rounds=2)  # type: ignore[no-untyped-call]
    assert logits.shape[0] == batch


@pytest.mark.parametrize("batch", BATCHES)
def test_end_to_end(benchmark: BenchmarkFixture, session: Session, bundle: Bundle, batch: int) -> None:
    """Bytes of image files -> lesions."""
    images = golden_reference(bundle).images
    chosen = [images[index % len(images)] for index in range(batch)]
    arguments = (session, bundle.contract, Preprocessor(bundle.contract), chosen)
    benchmark.group = f"end to end, batch {batch}"
    ns = benchmark.pedantic(staged_call, args=arguments, rounds=MIN_ROUNDS, warmup_rounds=2)  # type: ignore[no-untyped-call]
    assert all(value > 0 for value in ns.values())
