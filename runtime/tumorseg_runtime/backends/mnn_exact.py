"""MNN at its low Winograd level (see `tumorseg_runtime.backends.mnn`)."""

from __future__ import annotations

from tumorseg_runtime.backends.mnn import MnnSession, open_variant, why_unavailable
from tumorseg_runtime.bundle.bundle import Bundle

__all__ = ["open_session", "why_unavailable"]

LEVEL = 1  # small Winograd tiles only: less rounding, more multiplications


def open_session(bundle: Bundle, device: str, precision: str, threads: int | None) -> MnnSession:
    """A session at the low level; raises as `tumorseg_runtime.backends.mnn.open_variant`."""
    return open_variant("mnn-exact", LEVEL, ("mnn-exact", "mnn"), bundle, device, precision, threads)
