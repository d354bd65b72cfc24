"""Shapes and textures of which phantoms are drawn: star-shaped lesions, smooth noise, soft borders."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import InputError

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.floating[Any]]  # float32; the stubs of some numpy versions widen it in sums


@dataclasses.dataclass(frozen=True)
class DrawnLesion:
    """Shape of one lesion. level: float32 (H, W), 0 at its centre, 1 on its border, more outside."""

    y: float
    x: float
    radius: float
    level: FloatArray

    @property
    def mask(self) -> BoolArray:
        """bool (H, W)."""
        return self.level < 1


def place(
    rng: np.random.Generator,
    count: int,
    size: tuple[int, int],
    unit: float,
    fits: Callable[[float, float, float], bool],
    *,
    jagged: bool = False,
    flat: bool = False,
) -> list[DrawnLesion]:
    """`count` lesions that do not touch, each where `fits(y, x, radius)`; raises InputError if none fits.

    flat: wider than deep and never one behind the other, as an ultrasound beam needs it.
    """
    lesions: list[DrawnLesion] = []
    for attempt in range(400):
        if len(lesions) == count:
            return lesions
        radius = rng.uniform(22, max(23.0, 60 - 8 * count - attempt / 2)) * unit
        y, x = (rng.uniform(1.4 * radius, length - 1.4 * radius) for length in size)
        if not fits(y, x, radius):
            continue
        gap = 12 * unit
        near = [abs(x - o.x) if flat else np.hypot(y - o.y, x - o.x) for o in lesions]
        if any(d < 1.3 * (radius + o.radius) + gap for d, o in zip(near, lesions, strict=True)):
            continue
        slim = rng.uniform(0.7, 1.0) * radius
        radii = (slim, radius) if flat and not jagged else (radius, slim)
        angle = rng.normal(0, 0.2) if flat else rng.uniform(0, np.pi)
        roughness = 0.11 if jagged else 0.03 if flat else 0.07
        level = star(rng, size, (y, x), radii, angle, roughness)
        lesions.append(DrawnLesion(y, x, radius, level))
    raise InputError(
        f"{count} lesions do not fit an image of {size[1]}x{size[0]} pixels: ask for at most three"
    )


def star(
    rng: np.random.Generator,
    size: tuple[int, int],
    centre: tuple[float, float],
    radii: tuple[float, float],
    angle: float,
    roughness: float,
) -> FloatArray:
    """Star-shaped region: float32 (H, W), 0 at its centre, 1 on its border, growing with the distance.

    radii: of the ellipse, (y, x) in pixels. roughness: standard deviation of its border, as a fraction.
    """
    turns = np.arange(1024, dtype=np.float64) * (2 * np.pi / 1024)
    border = np.hypot(np.cos(turns - angle) / radii[1], np.sin(turns - angle) / radii[0])  # 1 / radius
    order = np.arange(2, 12)[:, None]
    waves = (
        rng.normal(0, 1, order.shape) * order**-0.7 * np.cos(order * turns + rng.uniform(0, 7, order.shape))
    )
    border *= np.exp(roughness * 1.1 * np.clip(waves.sum(0), -2.2, 2.2))
    y = np.arange(size[0], dtype=np.float32)[:, None] - np.float32(centre[0])
    x = np.arange(size[1], dtype=np.float32)[None, :] - np.float32(centre[1])
    index = np.rint(np.arctan2(y, x) * np.float32(1024 / (2 * np.pi))).astype(np.intp) % 1024
    return np.asarray(np.hypot(y, x) * border.astype(np.float32)[index], np.float32)


def noise(
    rng: np.random.Generator, size: tuple[int, int], tall: float, wide: float | None = None
) -> FloatArray:
    """Smooth noise: float32 (H, W), mean about 0, deviation about 1, grain of tall x wide pixels."""
    wide = tall if wide is None else wide
    grid = (int(np.ceil(size[0] / tall)) + 3, int(np.ceil(size[1] / wide)) + 3)
    coarse = rng.normal(0, 1.25, grid).astype(np.float32)
    full = (round(grid[1] * wide), round(grid[0] * tall))
    fine = cv2.resize(coarse, full, interpolation=cv2.INTER_CUBIC)
    top, left = int(1.2 * tall), int(1.2 * wide)
    return np.ascontiguousarray(fine[top : top + size[0], left : left + size[1]], np.float32)


def ramp(value: FloatArray, width: float) -> FloatArray:
    """0 below -width, 1 above width, straight between: a border of that softness where value is 0."""
    return np.asarray(np.clip(value / (2 * width) + 0.5, 0, 1), np.float32)


def highest(level: FloatArray, y: float, x: float, radius: float) -> float:
    """Highest level on a circle that lies inside the image."""
    turns = np.linspace(0, 2 * np.pi, 16)
    rows, columns = np.rint(y + radius * np.sin(turns)), np.rint(x + radius * np.cos(turns))
    return float(level[rows.astype(np.intp), columns.astype(np.intp)].max())


def union(lesions: list[DrawnLesion], size: tuple[int, int]) -> BoolArray:
    mask = np.zeros(size, np.bool_)
    for lesion in lesions:
        mask |= lesion.mask
    return mask


def to_uint8(signal: FloatArray) -> UInt8Array:
    return np.asarray(np.rint(np.clip(signal, 0, 1) * 255), np.uint8)
