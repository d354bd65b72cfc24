"""All mutants, the one place that lists them."""

from __future__ import annotations

from tumorseg_benchmarks.mutants import equivalent
from tumorseg_benchmarks.mutants.bugs import (
    deploy,
    dicom,
    files,
    graph,
    images,
    int8,
    lesions,
    outputs,
    postprocess,
    preprocessing,
    session,
    stream,
    watch,
    weights,
)
from tumorseg_benchmarks.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    *images.MUTANTS,
    *dicom.MUTANTS,
    *preprocessing.MUTANTS,
    *graph.MUTANTS,
    *weights.MUTANTS,
    *int8.MUTANTS,
    *session.MUTANTS,
    *postprocess.MUTANTS,
    *lesions.MUTANTS,
    *deploy.MUTANTS,
    *stream.MUTANTS,
    *outputs.MUTANTS,
    *files.MUTANTS,
    *watch.MUTANTS,
)
EQUIVALENT: tuple[Mutant, ...] = equivalent.MUTANTS
