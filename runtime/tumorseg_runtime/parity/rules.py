"""What the runtime must make of a network's logits, by its rules written out plainly.

Slow, simple, and without a line of the code that serves: no OpenCV, no vectorised labelling. The door's
answers are held against these (`tumorseg_runtime.parity.replay`).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import SIGMOID, SOFTMAX, Contract
from tumorseg_runtime.images.frame import Spacing

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]
Run = tuple[int, int, int]  # row, first column, column behind the last
Point = tuple[int, int]  # x, y

CORNERS = 64  # whose distances from all others are taken at once
BAND_PIXELS = 2**16  # more at once does not fit into a core's cache


@dataclasses.dataclass(frozen=True)
class RuleLesion:
    """An 8-connected component of a mask: area in pixels, box (left, top, width, height), centroid (x, y),
    and the pixels of its outer border. corners: (n, 2) x, y, which hold its two most distant corners."""

    area: int
    box: tuple[int, int, int, int]
    centroid: tuple[float, float]
    border: frozenset[Point]
    corners: npt.NDArray[np.float64]


def bands_of(height: int, width: int) -> Iterator[slice]:
    """The rows of an image, band by band: what is worked out of each is small."""
    step = max(1, BAND_PIXELS // width)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def resized_rule(
    logits: FloatArray, height: int, width: int, rows: slice = slice(None)
) -> npt.NDArray[np.float64]:
    """What `postprocess.resize_logits` must give, by its rule in float64: (K, h, w) -> (K, height, width), or
    these rows of it.

    Bilinear with half-pixel centres: output sample i of n lies at (i + 0.5) * n_in / n - 0.5 source samples,
    and beyond the borders the border's value holds.
    """
    resized = logits.astype(np.float64)
    for axis, n_out, samples in ((1, height, np.arange(height)[rows]), (2, width, np.arange(width))):
        n_in = resized.shape[axis]
        position = np.clip((samples + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
        first = np.minimum(position.astype(np.intp), max(n_in - 2, 0))
        shape = [1, 1, 1]
        shape[axis] = len(samples)
        weight = (position - first).reshape(shape)
        second = np.minimum(first + 1, n_in - 1)
        resized = resized.take(first, axis) * (1 - weight) + resized.take(second, axis) * weight
    return resized


def decided_rule(logits: npt.NDArray[np.floating[Any]], contract: Contract) -> BoolArray:
    """Which classes the pixels of logits (K, ...) belong to: bool (K, ...).

    Under softmax a class must exceed the background's 0 and every class named before it, and no later one may
    exceed it.
    """
    masks = []
    for number, own in enumerate(logits):
        if contract.rule != SOFTMAX:
            masks.append(own >= np.float32(contract.logit_threshold))
            continue
        mask = own > 0
        for other, logit in enumerate(logits):
            if other != number:
                mask = mask & (own > logit if other < number else own >= logit)
        masks.append(mask)
    return np.stack(masks)


def distance_rule(logits: npt.NDArray[np.floating[Any]], contract: Contract) -> npt.NDArray[np.float64]:
    """By how much all logits (K, ...) must err at least for each decision to be another; below 0 outside of
    the mask. Two classes that err towards each other meet half-way."""
    exact = logits.astype(np.float64)
    if contract.rule != SOFTMAX:
        return exact - float(np.float32(contract.logit_threshold))
    found = exact.copy()
    for number, own in enumerate(exact):
        for other, logit in enumerate(exact):
            if other != number:
                found[number] = np.minimum(found[number], (own - logit) / 2)
    return found


# By how much a probability may err where every logit errs by 1, at temperature 1.
PROBABILITY_SLOPES = {SIGMOID: 0.25, SOFTMAX: 0.5}


def probability_rule(logits: npt.NDArray[np.floating[Any]], contract: Contract) -> npt.NDArray[np.float64]:
    """Probabilities of logits (K, ...), at the contract's temperature."""
    powers = np.exp(np.clip(logits.astype(np.float64) / contract.temperature, -700, 700))
    if contract.rule == SOFTMAX:
        return np.asarray(powers / (1 + powers.sum(axis=0)))
    return np.asarray(powers / (1 + powers))


def tensor_rule(pixels: npt.NDArray[np.uint8], contract: Contract) -> FloatArray:
    """What preprocessing must make of uint8 (H, W) or (H, W, 3): float32 (C, height, width), bit by bit.

    Output sample i of n lies at (i + 0.5) * (1 / (n / n_in)) - 0.5 of the source's samples and takes the two
    around it with weights in 1/256, none beyond the borders; then (v / 255 - mean) / std in float32.
    """
    resized = pixels.astype(np.int64)
    if pixels.shape[:2] != (contract.height, contract.width):
        for axis, n_out in ((0, contract.height), (1, contract.width)):
            n_in = pixels.shape[axis]
            position = (np.arange(n_out) + 0.5) * (1 / (np.float64(n_out) / n_in)) - 0.5
            first = np.floor(position).astype(np.int64)
            weight = np.rint((position - first) * 256).astype(np.int64)
            weight[(first < 0) | (first >= n_in - 1)] = 0
            shape = [1] * pixels.ndim
            shape[axis] = n_out
            weight = weight.reshape(shape)
            low, high = np.clip(first, 0, n_in - 1), np.clip(first + 1, 0, n_in - 1)
            resized = resized.take(low, axis) * (256 - weight) + resized.take(high, axis) * weight
        resized = (resized + 2**15) >> 16
    planes = resized if pixels.ndim == 3 else np.repeat(resized[..., None], contract.channels, axis=2)
    values = planes.astype(np.float32) / np.float32(255)
    scaled = (values - np.asarray(contract.mean, np.float32)) / np.asarray(contract.std, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def lesions_rule(mask: BoolArray) -> list[RuleLesion]:
    """The 8-connected components of a mask (H, W), in no particular order.

    The last answers are kept: a replay asks for the same mask at every batch size.
    """
    return list(_lesions_of(np.packbits(mask).tobytes(), *mask.shape))


@functools.lru_cache(maxsize=256)
def _lesions_of(bits: bytes, height: int, width: int) -> tuple[RuleLesion, ...]:
    packed = np.frombuffer(bits, np.uint8)
    mask = np.unpackbits(packed, count=height * width).reshape(height, width).astype(np.bool_)
    return tuple(_lesion(runs) for runs in _components(mask, diagonal=True))


def walk(contour: Sequence[Point]) -> frozenset[Point] | None:
    """All pixels on a closed contour of (x, y) corners, whose sides run straight or diagonally; None where
    one does not."""
    pixels = set(contour)
    for (x, y), (to_x, to_y) in zip(contour, [*contour[1:], contour[0]], strict=True):
        dx, dy = to_x - x, to_y - y
        if dx and dy and abs(dx) != abs(dy):
            return None
        if dx or dy:
            pixels.update(zip(_steps(x, to_x), _steps(y, to_y), strict=False))
    return frozenset(pixels)


def _steps(start: int, stop: int) -> Iterable[int]:
    """From one number to the next, without it; one that stays does so for as long as the other goes."""
    return range(start, stop, 1 if stop > start else -1) if start != stop else itertools.repeat(start)


def spacing_rule(box: tuple[int, int, int, int], spacings: Sequence[Spacing]) -> tuple[float, float] | None:
    """(row, column) in mm of the one spacing that holds for all of a lesion; None without one, and where two
    different ones hold."""
    left, top, width, height = box
    found = set()
    for spacing in spacings:
        x, y, w, h = spacing.box or (0, 0, left + width, top + height)
        if x <= left and y <= top and left + width <= x + w and top + height <= y + h:
            found.add((spacing.row_mm, spacing.column_mm))
    return found.pop() if len(found) == 1 else None


def diameter_rule(lesion: RuleLesion, row_mm: float, column_mm: float) -> float:
    """Largest distance in mm between two corners of a lesion's pixels."""
    x, y = (lesion.corners * (column_mm, row_mm)).T
    some = (slice(start, start + CORNERS) for start in range(0, len(x), CORNERS))
    squares = ((x - x[one, None]) ** 2 + (y - y[one, None]) ** 2 for one in some)
    return math.sqrt(max(float(one.max()) for one in squares))


def _runs(mask: BoolArray) -> list[Run]:
    """The runs of set pixels, row by row."""
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    padded[:, 1:-1] = mask
    rows, columns = (edge.tolist() for edge in np.nonzero(np.diff(padded, axis=1)))
    return list(zip(rows[::2], columns[::2], columns[1::2], strict=True))


def _components(mask: BoolArray, *, diagonal: bool) -> list[list[Run]]:
    """The runs of each connected component; `diagonal`: whether pixels touch at corners, too."""
    parent: dict[Run, Run] = {}

    def root(run: Run) -> Run:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    reach, above, last = int(diagonal), list[Run](), -2
    for y, here in itertools.groupby(_runs(mask), key=lambda run: run[0]):
        above, before = list(here), above if last == y - 1 else []
        last, first = y, 0
        for run in above:
            parent[run] = run
            while first < len(before) and before[first][2] + reach <= run[1]:
                first += 1
            for other in before[first:]:
                if other[1] >= run[2] + reach:
                    break
                parent[root(other)] = root(run)
    members: dict[Run, list[Run]] = {}
    for run in parent:
        members.setdefault(root(run), []).append(run)
    return list(members.values())


def _lesion(runs: list[Run]) -> RuleLesion:
    area = sum(stop - start for _, start, stop in runs)
    left, right = min(start for _, start, _ in runs), max(stop for _, _, stop in runs)
    top, bottom = min(y for y, _, _ in runs), max(y for y, _, _ in runs) + 1
    x = sum((start + stop - 1) * (stop - start) for _, start, stop in runs) / 2 / area
    y = sum(y * (stop - start) for y, start, stop in runs) / area
    corners = {
        (side, edge) for row, start, stop in runs for side in (start - 0.5, stop - 0.5)
        for edge in (row - 0.5, row + 0.5)
    }  # fmt: skip
    ends: dict[float, list[float]] = {}
    for side, edge in corners:
        ends.setdefault(edge, []).append(side)
    outer = [(side, edge) for edge, sides in ends.items() for side in (min(sides), max(sides))]
    return RuleLesion(
        area, (left, top, right - left, bottom - top), (x, y), _outer_border(runs, left, top, right, bottom),
        np.array(outer),
    )  # fmt: skip


def _outer_border(runs: list[Run], left: int, top: int, right: int, bottom: int) -> frozenset[Point]:
    """Pixels of a component with a 4-neighbour outside of it that is joined with the image's outside, not
    with one of its holes."""
    inside = np.zeros((bottom - top + 2, right - left + 2), np.bool_)
    for y, start, stop in runs:
        inside[y - top + 1, start - left + 1 : stop - left + 1] = True
    outside = np.zeros_like(inside)
    background = _components(~inside, diagonal=False)
    around = next(one for one in background if any(run[:2] == (0, 0) for run in one))
    for y, start, stop in around:
        outside[y, start:stop] = True
    touches = np.zeros_like(inside)
    touches[1:-1, 1:-1] = (
        outside[:-2, 1:-1] | outside[2:, 1:-1] | outside[1:-1, :-2] | outside[1:-1, 2:]
    ) & inside[1:-1, 1:-1]
    ys, xs = np.nonzero(touches)
    return frozenset(zip((xs + left - 1).tolist(), (ys + top - 1).tolist(), strict=True))
