"""The plane of a chart (`tumorseg_train.report.charts`): its axes, round ticks, and labels that cover
nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeAlias

from tumorseg_train.report.page import escape

WIDTH = 400.0  # of the drawing, in its own units; text has 12 of them
LEFT, RIGHT, TOP, BOTTOM = 56.0, 14.0, 12.0, 44.0  # margins around the plot
LETTER = 7.2  # mean width of a letter
Box: TypeAlias = tuple[float, float, float, float]


def number(value: float) -> str:
    """Three significant digits, all those before the point, and no trailing zeros; '-' for NaN."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


@dataclasses.dataclass(frozen=True)
class Label:
    """Text at a point of its base line: its 'start', 'middle' or 'end' lies there."""

    x: float
    y: float
    text: str
    anchor: str

    @property
    def box(self) -> Box:
        """Left, top, right and bottom, by the mean width of a letter."""
        wide = LETTER * len(self.text)
        left = self.x - {"start": 0.0, "middle": wide / 2, "end": wide}[self.anchor]
        return left, self.y - 10, left + wide, self.y + 2


class Plot:
    """From values to the drawing's units; y grows upwards."""

    def __init__(self, xs: tuple[float, float], ys: tuple[float, float], log_x: bool = False) -> None:
        self.xs, self.ys, self.log_x, self.height = xs, ys, log_x, 280.0

    def at(self, x: float, y: float) -> tuple[float, float]:
        low, high = self.xs
        if self.log_x:
            x, low, high = math.log10(x), math.log10(low), math.log10(high)
        across, up = (x - low) / (high - low), (y - self.ys[0]) / (self.ys[1] - self.ys[0])
        down = self.height - BOTTOM
        return LEFT + min(max(across, 0), 1) * (WIDTH - LEFT - RIGHT), down - min(max(up, 0), 1) * (
            down - TOP
        )

    def frame(self, x: str, y: str) -> list[str]:
        """Grid, ticks and names of the axes."""
        down, parts = self.height - BOTTOM, []
        for tick in _ticks(*self.ys):
            py = self.at(self.xs[0], tick)[1]
            parts.append(f'<line class="grid" x1="{LEFT}" y1="{py:.1f}" x2="{WIDTH - RIGHT}" y2="{py:.1f}"/>')
            parts.append(
                f'<text class="soft" x="{LEFT - 6}" y="{py + 4:.1f}" text-anchor="end">{number(tick)}</text>'
            )
        for tick in _log_ticks(*self.xs) if self.log_x else _ticks(*self.xs):
            px = self.at(tick, self.ys[0])[0]
            parts.append(f'<line class="axis" x1="{px:.1f}" y1="{down}" x2="{px:.1f}" y2="{down + 4}"/>')
            parts.append(
                f'<text class="soft" x="{px:.1f}" y="{down + 18}" text-anchor="middle">{number(tick)}</text>'
            )
        parts.append(f'<line class="axis" x1="{LEFT}" y1="{down}" x2="{WIDTH - RIGHT}" y2="{down}"/>')
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text x="{middle}" y="{self.height - 8}" text-anchor="middle">{escape(x)}</text>')
        turn = f"translate(11 {(TOP + down) / 2}) rotate(-90)"
        parts.append(f'<text transform="{turn}" text-anchor="middle">{escape(y)}</text>')
        return parts


def place_labels(
    spots: Sequence[tuple[float, float]], labels: Sequence[str], plot: Plot, *, force: bool = False
) -> list[Label] | None:
    """A place for each label, clear of points and other labels; None where they do not fit.

    `force` puts a label that fits nowhere to the right of its point.
    """
    taken = [(px - 5, py - 5, px + 5, py + 5) for px, py in spots]
    placed = []
    for (px, py), text in zip(spots, labels, strict=True):
        choices = [
            Label(px + 8, py + 4, text, "start"), Label(px - 8, py + 4, text, "end"),
            Label(px, py - 9, text, "middle"), Label(px, py + 18, text, "middle"),
            Label(px + 6, py - 8, text, "start"), Label(px + 6, py + 16, text, "start"),
            Label(px - 6, py - 8, text, "end"), Label(px - 6, py + 16, text, "end"),
        ]  # fmt: skip
        chosen = next((label for label in choices if _fits(label.box, taken, plot)), None)
        if chosen is None and not force:
            return None
        chosen = chosen or choices[0]
        taken.append(chosen.box)
        placed.append(chosen)
    return placed


def _fits(box: Box, taken: Sequence[Box], plot: Plot) -> bool:
    inside = box[0] >= LEFT and box[2] <= WIDTH and box[1] >= 0 and box[3] <= plot.height - BOTTOM
    return inside and all(
        box[2] < other[0] or other[2] < box[0] or box[3] < other[1] or other[3] < box[1] for other in taken
    )


def range_of(values: Sequence[float], log: bool = False) -> tuple[float, float]:
    """From the least to the largest value with some room on both sides; never empty."""
    if not values:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = min(values), max(values)
    if log:
        return low / 1.5, high * 1.5
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return (0.0 if 0 <= low < room else low - room), high + room


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two others, about five of them."""
    raw = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(raw))
    step = min((m * unit for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - raw))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each power of ten between two numbers; only the powers over a wide range."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    each = (1, 2, 5) if high / low < 500 else (1,)
    return [m * 10.0**p for p in powers for m in each if low <= m * 10.0**p <= high]
