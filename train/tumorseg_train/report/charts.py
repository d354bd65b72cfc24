"""Charts of a page, drawn by matplotlib as inline SVG: bars, lines, a scatter with its Pareto front, a
histogram. One drawing serves both themes: its colours are variables of the page's style.

matplotlib comes with the extras train and pages. Where it is absent (a device), a line says so in place of
the chart; its figures are in the page's tables.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from tumorseg_train.report.page import bullets, chart, paragraph
from tumorseg_train.report.tables import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = [f"#00000{index + 1}" for index in range(6)]  # stand for --c0 to --c5 of the page's style
INK, SOFT, LINE = "#000011", "#000012", "#000013"
VARIABLES = {
    **{colour: f"var(--c{index})" for index, colour in enumerate(COLOURS)},
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "font.size": 10, "text.parse_math": False,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": SOFT,
    "xtick.color": SOFT, "ytick.color": SOFT, "grid.color": LINE, "axes.grid": True, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 2,
}  # fmt: skip
LETTERS = 45  # of a bar's name, which a chart has room for; tables have all
NAMED = 6  # points of a scatter with their names below it


@dataclasses.dataclass(frozen=True)
class Bar:
    """A bar with its interval; value NaN means not measured."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of a scatter, with the interval of its y. kind: points of one kind share a colour."""

    label: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    kind: str = ""


def bars(title: str, rows: Sequence[Bar], *, unit: str = "", top: float | None = None) -> Markup:
    """Horizontal bars from 0 to `top` (None: the largest value), each with its label above and its value."""
    shown = [row for row in rows if math.isfinite(row.value)]

    def draw(axes: Axes) -> None:
        for place, row in enumerate(shown):
            axes.barh(
                place, row.value, 0.4, color=COLOURS[0], xerr=_arms(row.value, row), ecolor=INK, capsize=3
            )
            text = f"{number(row.value)} {unit}".strip()
            name = row.label if len(row.label) <= LETTERS else f"{row.label[:LETTERS]}…"
            axes.text(0, place - 0.3, f"{name}: {text}", va="bottom", in_layout=False)
        axes.set(yticks=[], ylim=(len(shown) - 0.5, -0.9), xlabel=unit)
        axes.set_xlim(0, top)

    spoken = "; ".join(f"{row.label} {number(row.value)}" for row in rows)
    return _chart(title, f"{title}, bars: {spoken}", draw, 0.9 + 0.5 * max(1, len(shown)))


def lines(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x: str,
    y: str,
    limits: tuple[float, float] | None = None,
    diagonal: bool = False,
) -> Markup:
    """Lines through (x, y) points. limits: of y; diagonal: of x, too, and y = x is drawn dashed."""

    def draw(axes: Axes) -> None:
        if diagonal:
            axes.plot((0, 1), (0, 1), "--", color=SOFT, linewidth=1)
        for index, (name, points) in enumerate(series.items()):
            values = np.asarray(points, np.float64).reshape(-1, 2)
            mark = "o" if len(values) <= 40 else ""
            axes.plot(*values.T, color=COLOURS[index % len(COLOURS)], marker=mark, markersize=4, label=name)
        axes.set(xlabel=x, ylabel=y, ylim=limits, xlim=limits if diagonal else None)
        if len(series) > 1:
            axes.legend()

    spoken = "; ".join(f"{name}, {len(points)} points" for name, points in series.items())
    return _chart(title, f"{title}, lines of {y} over {x}: {spoken}", draw)


def scatter(
    title: str, points: Sequence[Point], *, x: str, y: str, log_x: bool = False, front: bool = False
) -> Markup:
    """Points; `front` joins those that none beats by a smaller x and a larger y.

    At most NAMED have a number and their names below, those on the front first: the table has all.
    """
    shown = [p for p in points if math.isfinite(p.x) and math.isfinite(p.y) and not (log_x and p.x <= 0)]
    best = [shown[index] for index in pareto_front([(p.x, p.y) for p in shown])] if front else []
    named = shown if len(shown) <= NAMED else best[-NAMED:]
    kinds = list(dict.fromkeys(p.kind for p in shown))

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        if log_x:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.plot([p.x for p in best], [p.y for p in best], "--", color=SOFT, linewidth=1)
        for index, kind in enumerate(kinds):
            for p in (p for p in shown if p.kind == kind):
                axes.errorbar(
                    p.x, p.y, _arms(p.y, p), fmt="o", capsize=3, color=COLOURS[index % len(COLOURS)],
                    ecolor=SOFT, label=kind, elinewidth=1,
                )  # fmt: skip
        for place, p in enumerate(named, start=1):
            axes.annotate(str(place), (p.x, p.y), (-7, 4), textcoords="offset points", ha="right")
        axes.set(xlabel=x, ylabel=y)
        if log_x and shown:  # a logarithmic axis of one value, or of two close ones, has no ticks and no room
            low, high = min(p.x for p in shown), max(p.x for p in shown)
            if high < 2 * low:
                axes.set_xlim(low / 1.5, high * 1.5)
        if 1 < len(kinds) <= NAMED:
            handles, names = axes.get_legend_handles_labels()
            unique = dict(zip(names, handles, strict=True))
            axes.legend(unique.values(), unique.keys(), loc="best", fontsize=8).set_in_layout(False)

    spoken = "; ".join(f"{p.label}: {number(p.x)}, {number(p.y)}" for p in shown)
    names = bullets([f"{place}: {p.label}" for place, p in enumerate(named, start=1)])
    return _chart(title, f"{title}, points of {y} over {x}: {spoken}", draw, below=names)


def histogram(title: str, values: Sequence[float], *, x: str, edges: Sequence[float] | None = None) -> Markup:
    """How many values lie between neighbouring edges (None: ten equal steps); the last edge is included."""
    finite = [value for value in values if math.isfinite(value)]

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        axes.hist(finite, 10 if edges is None else list(edges), color=COLOURS[0], rwidth=0.95)
        axes.set(xlabel=x, ylabel="count")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))

    median = f", median {number(float(np.median(finite)))}" if finite else ""
    return _chart(title, f"{title}, histogram of {x}: {len(finite)} values{median}", draw, 2.2)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (x, y), by x, that no other point beats by an x no larger and a y no smaller."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def _arms(value: float, row: Bar | Point) -> list[list[float]] | None:
    """Lengths of an interval to both sides of the value."""
    if row.low is None or row.high is None or not math.isfinite(row.low + row.high):
        return None
    return [[max(value - row.low, 0)], [max(row.high - value, 0)]]


def _chart(
    title: str, spoken: str, draw: Callable[[Axes], None], height: float = 3.0, below: Markup | None = None
) -> Markup:
    """height: in inches, at a width of 5."""
    if importlib.util.find_spec("matplotlib") is None:
        return paragraph(
            f"{title}: not drawn, since matplotlib is not installed: pip install 'tumorseg[pages]'", note=True
        )
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": title}):
        figure = Figure((5, height), layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        draw(axes)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)  # nothing refers to them, and ids of a page are unique
    svg = re.sub(r"#0000[01][1-6]", lambda found: VARIABLES[found[0]], svg)
    return chart(title, spoken, Markup(svg), below or Markup())
