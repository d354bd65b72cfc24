"""What the input guard must say of an image, by its rule written out plainly (`processing.input_guard`)."""

from __future__ import annotations

import hashlib
import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import ParityError
from tumorseg_runtime.processing.input_guard import FILE, FORMAT, InputCheck, InputGuard
from tumorseg_runtime.processing.preprocess import resize_rule

ROUNDING = 1e-6  # of a score
MOST_KNOWN = 512  # images
_KNOWN: dict[tuple[tuple[int, ...], bytes], tuple[float, list[float]]] = {}


class Guarded(Protocol):
    """What is asked of a prediction (`tumorseg_runtime.Prediction`)."""

    guard: InputGuard | None

    @property
    def image(self) -> npt.NDArray[np.uint8]:
        """The pixels that were judged."""

    @property
    def input_check(self) -> InputCheck | None:
        """What the guard says of them."""


def refuse_other_guard(bundle: Bundle, guard: InputGuard | None) -> None:
    """Raise ParityError where a device watches its input by another guard than its bundle's, or by none."""
    there = FORMAT.parse(bundle.read(FILE), bundle.root / FILE) if FILE in bundle.files else None
    held = None if guard is None else FORMAT.parse(guard.to_text(), FILE)
    if held != there:
        got = "none" if guard is None else "another one"
        expected = f"that of {FILE}" if there else "none"
        raise ParityError(
            f"{bundle.root}: the input guard that serves is {got}, expected {expected}: open the bundle "
            "with Segmenter.open or door_of"
        )


def guard_breaches(found: Guarded) -> list[str]:
    """What the prediction's check is not that its guard and pixels say."""
    check, guard = found.input_check, found.guard
    if check is None or guard is None:
        return [] if check is None and guard is None else ["the input guard or what it says is missing"]
    score, nearest = _score(guard, found.image)
    if abs(check.score - score) > ROUNDING * max(1.0, score) or check.nearest != nearest:
        return [
            f"the input guard gives {check.score:.6g} ({check.nearest}), expected {score:.6g} ({nearest})"
        ]
    if check.flagged != (check.score > 1) or check.flagged != (check.reason is not None):
        return [f"the input guard flags {check.flagged} at {check.score:.6g} of its limit"]
    return []


def _score(guard: InputGuard, pixels: npt.NDArray[np.uint8]) -> tuple[float, str]:
    colour, values = _of_pixels(pixels)
    tint = colour / guard.most_colour
    scores = []
    for kind in guard.kinds:
        away = [(v - m) / s for v, m, s in zip(values, kind.mean, kind.std, strict=True)]
        white = [sum(w * a for w, a in zip(row, away, strict=True)) for row in kind.whitening]
        scores.append(math.sqrt(sum(w * w for w in white) / len(white)) / kind.limit)
    return max(min(scores), tint), guard.kinds[scores.index(min(scores))].name


def _of_pixels(pixels: npt.NDArray[np.uint8]) -> tuple[float, list[float]]:
    """Mean difference of the colour channels, and the statistics; of one image worked out once."""
    key = (pixels.shape, hashlib.sha256(np.ascontiguousarray(pixels).data).digest())
    if key not in _KNOWN:
        levels = np.atleast_3d(resize_rule(pixels, 256, 256)).astype(int)  # (256, 256, 1 or 3)
        colour = float((levels.max(axis=2) - levels.min(axis=2)).mean())
        while len(_KNOWN) >= MOST_KNOWN:
            _KNOWN.pop(next(iter(_KNOWN)))
        _KNOWN[key] = colour, _statistics(levels.sum(axis=2) // levels.shape[2])
    return _KNOWN[key]


def _statistics(gray: npt.NDArray[Any]) -> list[float]:
    """Of integers (256, 256), in the order of `input_guard.STATISTICS`."""
    ordered, size = sorted(gray.ravel().tolist()), gray.size
    found = [float(ordered[math.ceil(size * percent / 100) - 1]) for percent in (10, 25, 50, 75, 90)]
    found += [math.log(np.count_nonzero(gray < 3) / size + 1e-3), math.log((gray > 252).sum() / size + 1e-3)]
    for step in (1, 4, 16):
        means = _squares(gray, step)
        for moved in (means[:, 1:] - means[:, :-1], means[1:] - means[:-1]):
            found.append(math.log(float(np.abs(moved).mean()) + 0.5))
    grid = _squares(gray, 16)
    places = [(y, x) for y in range(16) for x in range(16)]
    for chosen in (
        [place for place in places if math.dist(place, (7.5, 7.5)) > 9],
        [place for place in places if place[1] in (0, 15)],
        [place for place in places if place[0] in (0, 15)],
    ):
        found.append(math.log(sum(float(grid[place]) for place in chosen) / len(chosen) + 1))
    found += [float(grid[top : top + 4].mean()) for top in (0, 4, 8, 12)]
    centred = grid - grid.mean()
    for mirrored in (centred[:, ::-1], centred[::-1]):
        found.append(float((centred * mirrored).sum() / ((centred**2).sum() + 1)))
    return found


def _squares(gray: npt.NDArray[Any], side: int) -> npt.NDArray[np.float64]:
    """Means of squares of so many pixels."""
    edges = range(0, len(gray), side)
    return np.asarray(np.add.reduceat(np.add.reduceat(gray, edges), edges, axis=1) / side**2)
