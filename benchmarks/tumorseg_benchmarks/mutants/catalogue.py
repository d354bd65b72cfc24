"""All mutants, the one place that lists them."""

from __future__ import annotations

from tumorseg_benchmarks.mutants import equivalent, files, late, preprocessing, weights
from tumorseg_benchmarks.mutants import graph as graphs
from tumorseg_benchmarks.mutants import postprocess as decisions
from tumorseg_benchmarks.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    *preprocessing.MUTANTS,
    *graphs.MUTANTS,
    *weights.MUTANTS,
    *decisions.MUTANTS,
    *files.MUTANTS,
    *late.MUTANTS,
)
EQUIVALENT: tuple[Mutant, ...] = equivalent.MUTANTS
