"""How alike two images are, so that copies of one scene are found whatever their size, crop and contrast.

A perceptual hash (signs of the low cosine frequencies) names candidates: two hashes of unlike images differ
in 32 of 64 bits on average. The correlation then decides: of the texture (local contrast, without the slow
changes of brightness that all heads and all breasts share), inside a soft window, at the best shift.
Thresholds and what they find in the two datasets: docs/data.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

SIDE = 96  # pixels of the texture's height and width, whatever the image's proportions
SHIFT = 12  # pixels of the texture by which two images may be shifted against each other
SIGMA = 2.5  # pixels of the texture; slower changes are taken out
NOISE = 10.0  # gray values; a contrast below it is not blown up
BITS_APART = 24  # of 64; a candidate's hash differs in no more
BATCH = 64  # candidates whose correlations are computed together: 5 MB, which caches hold


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """What is compared of an image. bits: bool (64,). spectrum: complex64 (SIDE, SIDE // 2 + 1)."""

    bits: BoolArray
    spectrum: npt.NDArray[np.complex64]


def fingerprint_of(pixels: npt.NDArray[np.uint8]) -> Fingerprint:
    """The look of an image, uint8 (H, W) or RGB (H, W, 3)."""
    gray = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(cv2.resize(small, (32, 32), interpolation=cv2.INTER_AREA))[:8, :8].ravel()
    fine = small - cv2.GaussianBlur(small, (0, 0), SIGMA)
    fine /= np.sqrt(cv2.GaussianBlur(fine * fine, (0, 0), SIGMA)) + NOISE
    window = np.hanning(SIDE).astype(np.float32)
    fine *= np.outer(window, window)
    fine -= fine.mean()
    norm = float(np.sqrt((fine * fine).sum()))
    spectrum = np.fft.rfft2(fine / norm if norm > 1e-3 else np.zeros_like(fine))  # an even image is like none
    return Fingerprint(low > np.median(low[1:]), spectrum.astype(np.complex64))


def similarity(first: Fingerprint, second: Fingerprint) -> float:
    """Correlation of two images' textures at the best shift: 1 for copies, near 0 for strangers."""
    return float(_correlations(first.spectrum[None], second.spectrum[None])[0])


def alike(fingerprints: Sequence[Fingerprint], least: float) -> list[tuple[int, int, float]]:
    """(i, j, similarity) of all pairs i < j of at least this similarity, in the order of i and j."""
    if not fingerprints:
        return []
    signs = np.stack([fingerprint.bits for fingerprint in fingerprints]).astype(np.float32) * 2 - 1
    spectra = np.stack([fingerprint.spectrum for fingerprint in fingerprints])
    found: list[tuple[int, int, float]] = []
    for i in range(len(fingerprints) - 1):
        apart = (64 - signs[i + 1 :] @ signs[i]) / 2
        candidates = i + 1 + np.flatnonzero(apart <= BITS_APART)
        for start in range(0, len(candidates), BATCH):
            batch = candidates[start : start + BATCH]
            values = _correlations(spectra[i][None], spectra[batch])
            found += [(i, int(j), float(v)) for j, v in zip(batch, values, strict=True) if v >= least]
    return found


def _correlations(first: npt.NDArray[np.complex64], second: npt.NDArray[np.complex64]) -> Float32Array:
    """Best correlation over the shifts of (1, SIDE, ·) with (N, SIDE, ·) -> (N,)."""
    every = np.fft.irfft2(first.conj() * second, s=(SIDE, SIDE), axes=(1, 2))
    near = np.r_[0 : SHIFT + 1, -SHIFT:0]
    return np.asarray(every[:, near][:, :, near].max(axis=(1, 2)), np.float32)
