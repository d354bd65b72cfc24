"""Which layers of two networks are the same, and how far apart two of their tensors lie."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
SAME_WEIGHTS = 1e-2  # largest difference of weights that are the same but rounded, of their largest value


def snr_db(expected: FloatArray, got: FloatArray) -> float:
    """SNR in dB: infinite where nothing differs, minus infinite where the error is not finite."""
    reference = expected.astype(np.float64)
    noise = float(np.sum(np.square(got.astype(np.float64) - reference)))
    power = float(np.sum(np.square(reference)))
    if noise == 0:
        return math.inf
    return 10 * math.log10(power / noise) if math.isfinite(noise) and power > 0 else -math.inf


def align(ours: Sequence[FloatArray | None], theirs: Sequence[FloatArray | None]) -> list[tuple[int, int]]:
    """Pairs (index, index) of layers in order: the alignment with most equal weights, then equal shapes."""
    rows, columns = len(ours), len(theirs)
    gain = np.array([[_alike(a, b) for b in theirs] for a in ours], np.float64).reshape(rows, columns)
    best = np.zeros((rows + 1, columns + 1))
    for i in range(rows - 1, -1, -1):
        for j in range(columns - 1, -1, -1):
            take = best[i + 1, j + 1] + gain[i, j] if gain[i, j] else -1.0
            best[i, j] = max(take, best[i + 1, j], best[i, j + 1])
    pairs, i, j = [], 0, 0
    while i < rows and j < columns:
        if gain[i, j] and best[i, j] == best[i + 1, j + 1] + gain[i, j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i, j] == best[i + 1, j]:
            i += 1
        else:
            j += 1
    return pairs


def _alike(a: FloatArray | None, b: FloatArray | None) -> float:
    if a is None or b is None:
        return 0.5  # may be the same; nothing is known
    if a.shape != b.shape:
        return 0.0
    return 2.0 if differ(a, b) <= SAME_WEIGHTS else 1.0


def differ(expected: FloatArray, got: FloatArray) -> float:
    """Largest difference of two arrays of one shape, in shares of the largest expected magnitude."""
    return float(np.abs(got - expected).max() / (np.abs(expected).max() or 1.0))
