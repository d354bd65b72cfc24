"""The deploy forms of a bundle as candidates: pixels in, masks out, compared like every artefact."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.variants.candidates import Candidate
from tumorseg_benchmarks.variants.variants import Variant, variant_of
from tumorseg_runtime.backends import BACKENDS, MASK_BACKENDS, open_session, why_unavailable
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]


def deploy_candidates(bundle: Bundle) -> list[Candidate]:
    """The deploy forms that the bundle holds, opened on the CPU; none where it holds none."""
    return [_open(bundle, variant) for variant in deploy_variants(bundle)]


def deploy_variants(bundle: Bundle) -> list[Variant]:
    """Those forms on the CPU."""
    return [
        variant_of(backend, "cpu", artefact.precision)
        for backend in MASK_BACKENDS
        for artefact in bundle.artefacts
        if artefact.format in BACKENDS[backend].formats
    ]


def _open(bundle: Bundle, variant: Variant) -> Candidate:
    if reason := why_unavailable(variant.engine, variant.device):
        return Candidate(variant, None, reason)
    try:
        session = open_session(
            bundle, backend=variant.engine, device=variant.device, precision=variant.precision
        )
    except (BackendError, BundleError, InputError) as error:
        return Candidate(variant, None, str(error), failed=True)
    return Candidate(variant, session)
