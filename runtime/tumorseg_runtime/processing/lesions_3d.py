"""Lesions of a volume: 26-connected components of its masks, found slice by slice.

Two voxels are one lesion where they share a face, an edge or a corner, within a slice or from one slice to
the next: the rule of a single image (8-connected), carried to three axes. Only the last slice's labels are
held.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]
_NEAR = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1)]


@dataclasses.dataclass(frozen=True)
class Lesion3D:
    """One connected component of a volume's mask.

    label: name of the class. voxels: how many. volume_mm3: what they fill.
    box: first voxel (i, j, k), then the number of voxels, along each axis as the file stores them.
    centroid: (i, j, k). centroid_mm: the same by the affine: mm to the patient's right, front and head.
    """

    label: str
    voxels: int
    volume_mm3: float
    box: tuple[int, int, int, int, int, int]
    centroid: tuple[float, float, float]
    centroid_mm: tuple[float, float, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass
class _Part:
    """What is known of a component so far: voxels, the sums of their indices, and its bounds (i, j, k)."""

    voxels: int
    sums: npt.NDArray[np.float64]
    low: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]

    def join(self, other: _Part) -> None:
        self.voxels += other.voxels
        self.sums = self.sums + other.sums
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)


class Components:
    """The components of one class's masks; slices are added in the order in which they are stored."""

    def __init__(self) -> None:
        self._parts: dict[int, _Part] = {}
        self._before: Int32Array | None = None
        self._ids: list[int] = []  # of the labels in the slice before
        self._index = 0
        self._next = 0

    def add(self, mask: npt.NDArray[np.bool_]) -> None:
        """The next slice as stored: bool, rows along j, columns along i."""
        count, labels, stats, centroids = cv2.connectedComponentsWithStats(
            mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S
        )
        ids = [-1] * count
        for label in range(1, count):
            left, top, width, height, area = (int(value) for value in stats[label])
            ids[label], self._next = self._next, self._next + 1
            self._parts[ids[label]] = _Part(
                area,
                area * np.array((*centroids[label], self._index), np.float64),
                np.array((left, top, self._index)),
                np.array((left + width - 1, top + height - 1, self._index)),
            )
        if self._before is not None and count > 1:
            same: dict[int, int] = {}
            for now, before in _touching(np.asarray(labels, np.int32), self._before):
                self._join(ids[now], self._ids[before], same)
            ids = [_root(one, same) for one in ids]
        self._before, self._ids = (np.asarray(labels, np.int32), ids) if count > 1 else (None, [])
        self._index += 1

    def _join(self, first: int, second: int, same: dict[int, int]) -> None:
        first, second = _root(first, same), _root(second, same)
        if first != second:
            self._parts[first].join(self._parts.pop(second))
            same[second] = first

    def lesions(self, label: str, affine: npt.NDArray[np.float64]) -> tuple[Lesion3D, ...]:
        """What was found, the largest first."""
        voxel_mm3 = float(abs(np.linalg.det(affine[:3, :3])))
        found = []
        for part in self._parts.values():
            centre = part.sums / part.voxels
            box = (*part.low.tolist(), *(part.high - part.low + 1).tolist())
            placed = (affine @ (*centre, 1))[:3]
            found.append(
                Lesion3D(
                    label, part.voxels, part.voxels * voxel_mm3, box, tuple(centre.tolist()),
                    tuple(placed.tolist()),
                )
            )  # fmt: skip
        return tuple(sorted(found, key=lambda lesion: (-lesion.voxels, lesion.box)))


def _touching(now: Int32Array, before: Int32Array) -> list[tuple[int, int]]:
    """Pairs of labels (in this slice, in the one before) of which a voxel lies above, or diagonally above."""
    height, width = now.shape
    wide = np.int64(before.max()) + 1
    pairs: set[int] = set()
    for down, across in _NEAR:
        upper = now[max(down, 0) : height + min(down, 0), max(across, 0) : width + min(across, 0)]
        lower = before[max(-down, 0) : height + min(-down, 0), max(-across, 0) : width + min(-across, 0)]
        both = (upper > 0) & (lower > 0)
        pairs |= set(np.unique(upper[both] * wide + lower[both]).tolist())
    return [divmod(pair, int(wide)) for pair in sorted(pairs)]


def _root(one: int, same: dict[int, int]) -> int:
    while one in same:
        one = same[one]
    return one
