"""Small charts as inline SVG for `tumorseg_train.report.page`: bars, lines, a scatter with its Pareto front,
a histogram. Each has a title and a description for screen readers, and its numbers in a table below it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tumorseg_train.report.page import Html, details, escape, table
from tumorseg_train.report.plot import WIDTH, Plot, number, place_labels, range_of

COLOURS = 6  # of the page's style
LINE = 58  # characters of a label and a value that stand side by side within WIDTH


@dataclasses.dataclass(frozen=True)
class Bar:
    """A bar with its interval; value NaN means not measured, and `note` may say why."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of a scatter, with the interval of its y. kind: points of one kind share a colour."""

    label: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    kind: str = ""


def bars(title: str, rows: Sequence[Bar], *, unit: str = "", top: float | None = None) -> Html:
    """Horizontal bars from 0 to `top` (None: the largest value), each with its label and value above it, in
    two lines where one is too short for both."""
    measured = [r for r in rows if math.isfinite(r.value)]
    limit = top or max([v for r in measured for v in (r.value, r.high or 0.0)], default=0.0) or 1.0
    y, parts = 14.0, []
    for row in rows:
        known = math.isfinite(row.value)
        text = f"{_interval(row.value, row.low, row.high)} {unit}".strip() if known else "not measured"
        parts.append(f'<text x="0" y="{y:.1f}">{escape(row.label)}</text>')
        if len(row.label) + len(text) > LINE:
            y += 17
        parts.append(
            f'<text x="{WIDTH:.0f}" y="{y:.1f}" text-anchor="end" class="halo">{escape(text)}</text>'
        )
        parts.append(f'<rect x="0" y="{y + 5:.1f}" width="{WIDTH:.0f}" height="12" fill="var(--panel)"/>')
        if known:
            length = WIDTH * min(row.value, limit) / limit
            parts.append(f'<rect x="0" y="{y + 5:.1f}" width="{length:.1f}" height="12" fill="var(--c0)"/>')
            if row.low is not None and row.high is not None and math.isfinite(row.low + row.high):
                a, b = (WIDTH * min(max(v, 0), limit) / limit for v in (row.low, row.high))
                parts.append(_whisker(a, y + 11, b, y + 11))
        y += 38
    header = ("", f"{unit or 'value'}>", "low>", "high>", "note")
    cells = [(r.label, number(r.value), _optional(r.low), _optional(r.high), r.note) for r in rows]
    spoken = "; ".join(f"{r.label} {_interval(r.value, r.low, r.high)}" for r in rows)
    return _chart(title, f"Bars. {spoken}", y, parts, table(header, cells))


def lines(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x: str,
    y: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    diagonal: bool = False,
) -> Html:
    """Lines through (x, y) points; points that are not finite are left out. diagonal: also y = x, dashed."""
    clean = {name: [p for p in points if all(map(math.isfinite, p))] for name, points in series.items()}
    every = [p for points in clean.values() for p in points]
    plot = Plot(x_range or range_of([p[0] for p in every]), y_range or range_of([p[1] for p in every]))
    parts = plot.frame(x, y)
    if diagonal:
        low, high = max(plot.xs[0], plot.ys[0]), min(plot.xs[1], plot.ys[1])
        a, b = plot.at(low, low), plot.at(high, high)
        parts.append(f'<line class="dash" x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}"/>')
    for index, (name, points) in enumerate(clean.items()):
        colour = f"var(--c{index % COLOURS})"
        spots = [plot.at(*p) for p in points]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in spots)
        parts.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        if len(spots) <= 40:
            parts += [
                f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}">'
                f"<title>{escape(name)}: {number(p[0])}, {number(p[1])}</title></circle>"
                for (px, py), p in zip(spots, points, strict=True)
            ]
    numbers = table(
        ("", f"{x}>", f"{y}>"), [(n, number(a), number(b)) for n, ps in series.items() for a, b in ps]
    )
    spoken = "; ".join(f"{name}: {len(points)} points" for name, points in clean.items())
    legend = _legend(list(clean)) if len(clean) > 1 else ""
    return _chart(title, f"Lines of {y} over {x}. {spoken}", plot.height, parts, numbers, legend)


def scatter(
    title: str, points: Sequence[Point], *, x: str, y: str, log_x: bool = False, front: bool = False
) -> Html:
    """Points with their labels; `front` draws the Pareto front of small x and large y.

    Where the labels would cover each other, points are numbered and a list below names them. Points that
    are not finite are only in the table.
    """
    shown = [p for p in points if math.isfinite(p.x) and math.isfinite(p.y) and not (log_x and p.x <= 0)]
    ys = [v for p in shown for v in (p.y, p.low, p.high) if v is not None and math.isfinite(v)]
    plot = Plot(range_of([p.x for p in shown], log_x), range_of(ys), log_x)
    parts = plot.frame(x, y)
    best = pareto_front([(p.x, p.y) for p in shown])
    if front and len(best) > 1:
        steps = [plot.at(shown[i].x, shown[i].y) for i in best]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in steps)
        parts.append(f'<polyline class="line dash" points="{path}"/>')
    kinds = list(dict.fromkeys(p.kind for p in shown))
    for p in shown:
        px, py = plot.at(p.x, p.y)
        if p.low is not None and p.high is not None and math.isfinite(p.low + p.high):
            parts.append(_whisker(px, plot.at(p.x, p.low)[1], px, plot.at(p.x, p.high)[1]))
        said = f"{p.label}: {x} {number(p.x)}, {y} {_interval(p.y, p.low, p.high)}"
        parts.append(
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5" fill="var(--c{kinds.index(p.kind) % COLOURS})">'
            f"<title>{escape(said)}</title></circle>"
        )
    spots = [plot.at(p.x, p.y) for p in shown]
    placed = place_labels(spots, [p.label for p in shown], plot)
    legend = "" if len(kinds) < 2 else _legend(kinds)
    if placed is None:
        placed = place_labels(spots, [str(i + 1) for i in range(len(shown))], plot, force=True) or []
        legend += '<ol class="legend">' + "".join(f"<li>{escape(p.label)}</li>" for p in shown) + "</ol>"
    parts += [
        f'<text class="halo" x="{each.x:.1f}" y="{each.y:.1f}" text-anchor="{each.anchor}">'
        f"{escape(each.text)}</text>"
        for each in placed
    ]
    header = ("", f"{x}>", f"{y}>", "low>", "high>", *(("on the front",) if front else ()))
    names = {id(shown[i]) for i in best}
    cells = [
        (
            p.label, number(p.x), number(p.y), _optional(p.low), _optional(p.high),
            *(("yes" if id(p) in names else "",) if front else ()),
        )
        for p in points
    ]  # fmt: skip
    spoken = "; ".join(f"{p.label}: {number(p.x)}, {number(p.y)}" for p in shown)
    return _chart(
        title, f"Points of {y} over {x}. {spoken}", plot.height, parts, table(header, cells), legend
    )


def histogram(title: str, values: Sequence[float], *, x: str, edges: Sequence[float] | None = None) -> Html:
    """How many values lie between neighbouring edges (None: ten equal steps); the last edge is included."""
    finite = np.asarray([v for v in values if math.isfinite(v)], np.float64)
    counts, bounds = np.histogram(finite, bins=10 if edges is None else np.asarray(edges, np.float64))
    plot = Plot((float(bounds[0]), float(bounds[-1])), (0.0, float(max(1, counts.max()))))
    parts = plot.frame(x, "count")
    for count, a, b in zip(counts, bounds[:-1], bounds[1:], strict=True):
        (left, up), (right, down) = plot.at(float(a), float(count)), plot.at(float(b), 0)
        parts.append(
            f'<rect x="{left + 0.5:.1f}" y="{up:.1f}" width="{right - left - 1:.1f}" '
            f'height="{down - up:.1f}" fill="var(--c0)">'
            f"<title>{number(a)} to {number(b)}: {count}</title></rect>"
        )
    cells = [
        (f"{number(a)} to {number(b)}", str(n))
        for n, a, b in zip(counts, bounds[:-1], bounds[1:], strict=True)
    ]
    spoken = f"{len(finite)} values" + (f", median {number(float(np.median(finite)))}" if len(finite) else "")
    return _chart(title, f"Histogram of {x}. {spoken}", plot.height, parts, table((x, "count>"), cells))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (x, y), by x, that no other point beats by an x no larger and a y no smaller."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def _whisker(x1: float, y1: float, x2: float, y2: float) -> str:
    """An interval with a cap at both ends, level or upright."""
    dx, dy = (0, 4) if y1 == y2 else (4, 0)
    ends = "".join(f"M{x - dx:.1f} {y - dy:.1f}L{x + dx:.1f} {y + dy:.1f}" for x, y in ((x1, y1), (x2, y2)))
    return f'<path class="whisker" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}{ends}"/>'


def _interval(value: float, low: float | None, high: float | None) -> str:
    """'value (low to high)', all with as many decimals as the one that needs most; shares with three."""
    if low is None or high is None or not all(map(math.isfinite, (value, low, high))):
        return number(value)
    decimals = max(len(number(v).partition(".")[2]) for v in (value, low, high))
    if max(abs(value), abs(low), abs(high)) <= 1:
        decimals = max(decimals, 3)
    first, second, third = (f"{v:.{decimals}f}" for v in (value, low, high))
    return f"{first} ({second} to {third})"


def _optional(value: float | None) -> str:
    return "" if value is None else number(value)


def _legend(names: Sequence[str]) -> str:
    marks = "".join(
        f'<span style="color: var(--c{i % COLOURS})" aria-hidden="true">●</span> {escape(name)} &nbsp; '
        for i, name in enumerate(names)
    )
    return f'<div class="note">{marks}</div>'


def _chart(
    title: str, spoken: str, height: float, parts: Sequence[str], numbers: Html, legend: str = ""
) -> Html:
    name = escape(title)
    return Html(
        f'<figure class="chart"><figcaption>{name}</figcaption>\n'
        f'<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" aria-label="{name}">'
        f"<title>{name}</title><desc>{escape(spoken)}</desc>\n{chr(10).join(parts)}\n</svg>\n"
        f"{legend}{details('Numbers', numbers)}</figure>\n"
    )
