"""All mutants, the one place that lists them."""

from __future__ import annotations

from tumorseg_benchmarks.mutants import (
    equivalent,
    files,
    graph,
    images,
    postprocess,
    preprocessing,
    session,
    stream,
    weights,
)
from tumorseg_benchmarks.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    *images.MUTANTS,
    *preprocessing.MUTANTS,
    *graph.MUTANTS,
    *weights.MUTANTS,
    *session.MUTANTS,
    *postprocess.MUTANTS,
    *stream.MUTANTS,
    *files.MUTANTS,
)
EQUIVALENT: tuple[Mutant, ...] = equivalent.MUTANTS
