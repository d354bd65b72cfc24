"""All mutants, the one place that lists them."""

from __future__ import annotations

from tumorseg_benchmarks.mutants.bugs import (
    deploy,
    dicom,
    equivalent,
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
)
EQUIVALENT: tuple[Mutant, ...] = equivalent.MUTANTS
