"""The input guard of a split, fitted on the statistics of its training images (`processing.input_guard`).

A kind of image is an organ. Its limit is a percentile of distances that training images have from a fit of
the others, whole groups left out: images of one patient are alike, and a limit from distances to themselves
would be too tight.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.processing.input_guard import STATISTICS, InputGuard, KindOfImage

LEAST_IMAGES, FOLDS = 50, 5
USUAL = 0.995  # share of the training images that is within the limit
ROOM = 10.0  # added to the limit, over the number of images: the percentile of few is a guess
SHRINKAGE = 0.02  # of the correlations towards none
COLOUR_ROOM, LEAST_COLOUR = 1.5, 4.0  # times the most of the training images; gray levels
# Smallest standard deviation that is believed, in gray levels, and for logarithms and correlations.
LEAST_SPREAD = np.array([1.0 if name in STATISTICS[:5] + STATISTICS[16:20] else 0.05 for name in STATISTICS])
FloatArray = npt.NDArray[np.float64]


def fit_guard(
    split_sha256: str,
    values: FloatArray,
    colours: FloatArray,
    organs: Sequence[str],
    groups: Sequence[str],
) -> InputGuard:
    """A guard of images by their statistics, organs and groups; raises InputError for too few of an organ."""
    kinds = []
    for organ in sorted(set(organs)):
        rows = [row for row, name in enumerate(organs) if name == organ]
        kinds.append(_fit_kind(organ, values[rows], [groups[row] for row in rows]))
    return InputGuard(split_sha256, max(LEAST_COLOUR, COLOUR_ROOM * float(colours.max())), tuple(kinds))


def fold_of(group: str) -> int:
    """The fold that a group is left out in: the same in every split."""
    return int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) % FOLDS


def _fit_kind(organ: str, values: FloatArray, groups: Sequence[str]) -> KindOfImage:
    folds = np.array([fold_of(group) for group in groups])
    if len(values) < LEAST_IMAGES or len(set(folds.tolist())) < 2:
        raise InputError(
            f"{organ} has {len(values)} training images in {len(set(groups))} groups, expected at least "
            f"{LEAST_IMAGES} in several: an input guard of fewer would flag too many; add images"
        )
    distances = np.concatenate([
        _distances(values[folds == fold], _moments(values[folds != fold])) for fold in sorted(set(folds))
    ])  # fmt: skip
    mean, spread, whitening = _moments(values)
    limit = float(np.quantile(distances, USUAL)) * (1 + ROOM / len(values))
    return KindOfImage(
        organ,
        len(values),
        _digits(mean),
        _digits(spread),
        tuple(map(_digits, whitening)),
        _digits([limit])[0],
    )


def _moments(values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    mean, spread = values.mean(axis=0), np.maximum(values.std(axis=0), LEAST_SPREAD)
    standard = (values - mean) / spread
    size = values.shape[1]
    correlation = (1 - SHRINKAGE) * standard.T @ standard / len(values) + SHRINKAGE * np.eye(size)
    return mean, spread, np.linalg.inv(np.linalg.cholesky(correlation))


def _distances(values: FloatArray, moments: tuple[FloatArray, FloatArray, FloatArray]) -> FloatArray:
    mean, spread, whitening = moments
    white = (values - mean) / spread @ whitening.T
    return np.asarray(np.sqrt((white**2).mean(axis=1)))


def _digits(numbers: Sequence[float] | FloatArray) -> tuple[float, ...]:
    return tuple(float(f"{number:.8g}") for number in numbers)
