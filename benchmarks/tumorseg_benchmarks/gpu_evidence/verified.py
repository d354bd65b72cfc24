"""A bundle of the user's as evidence: what `tumorseg verify` says of one backend, noted check by check."""

from __future__ import annotations

from pathlib import Path

from tumorseg_benchmarks.gpu_evidence.stage import Findings
from tumorseg_runtime.inference.segmenter import door_of
from tumorseg_runtime.parity.verify import PASSED, UNVERIFIED, verify_bundle


def note_verified(root: Path, backend: str, device: str | None, found: Findings) -> None:
    """Note the checks of the bundle in `root`; a seal that is broken is a check that failed.

    device: None for all of the backend's.
    """
    verified = verify_bundle(root, door_of, backend=backend, device=device)
    for problem in verified.problems:
        found.check(f"{root.name}: seal", False, problem)
    for one in verified.checks:
        name = f"{root.name}, {one.backend} {one.device} {one.precision}"
        if one.status == UNVERIFIED:
            found.lacks(f"{name}: {one.detail}")
        else:
            found.check(name, one.status == PASSED, one.detail)
