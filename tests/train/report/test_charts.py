import itertools
import math
import re

import numpy as np

from tumorseg_train.report import charts
from tumorseg_train.report.plot import WIDTH, Plot, number, place_labels


def attributes(text: str, tag: str, name: str) -> list[float]:
    return [float(v) for v in re.findall(rf'<{tag} [^>]*\b{name}="([-\d.]+)"', text)]


def test_bars_are_as_long_as_their_values() -> None:
    rows = [
        charts.Bar("a", 0.5, 0.4, 0.6),
        charts.Bar("<b>", 0.25),
        charts.Bar("c", math.nan, note="no image"),
    ]
    text = charts.bars("Dice", rows, unit="Dice", top=1)
    assert attributes(text, "rect", "width") == [WIDTH, WIDTH / 2, WIDTH, WIDTH / 4, WIDTH]
    assert "0.500 (0.400 to 0.600) Dice" in text
    assert "not measured" in text
    assert "&lt;b&gt;" in text
    assert "no image" in text
    assert "<title>Dice</title><desc>Bars. a 0.500 (0.400 to 0.600); &lt;b&gt; 0.25; c -</desc>" in text


def test_a_long_label_leaves_a_line_to_its_value() -> None:
    long = "ONNX FP32, ONNX Runtime CPU (A/A control)"
    rows = [charts.Bar("short", 1, 0.9, 1.1), charts.Bar(long, 1, 0.9, 1.1)]
    text = charts.bars("Speed", rows, unit="times")
    one, same, two, below = attributes(text, "text", "y")
    assert one == same
    assert below - two > 12  # the text's height
    (height,) = (float(v) for v in re.findall(r'viewBox="0 0 [\d.]+ ([\d.]+)"', text))
    ends = [attributes(text, "rect", name) for name in ("y", "height")]
    assert height > max(y + tall for y, tall in zip(*ends, strict=True))


def test_lines_go_through_their_points() -> None:
    points = [(0.0, 0.0), (0.5, math.nan), (1.0, 1.0)]
    text = charts.lines("L", {"one": points}, x="p", y="q", x_range=(0, 1), y_range=(0, 1), diagonal=True)
    plot = Plot((0, 1), (0, 1))
    (x1, y1), (x2, y2) = plot.at(0, 0), plot.at(1, 1)
    assert f'points="{x1:.1f},{y1:.1f} {x2:.1f},{y2:.1f}"' in text
    assert f'class="dash" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"' in text
    assert y1 > y2  # larger is higher


def test_histogram_counts_every_value_once() -> None:
    text = charts.histogram("H", [0, 0.1, 0.5, 1, math.nan], x="Dice", edges=[0, 0.5, 1])
    assert "0 to 0.5: 2" in text
    assert "0.5 to 1: 2" in text
    assert "4 values, median 0.3" in text
    assert "0 values" in charts.histogram("H", [], x="Dice", edges=[0, 1])


def test_front_is_what_nobody_beats() -> None:
    rng = np.random.default_rng(1)
    points = [(float(a), float(b)) for a, b in rng.integers(0, 8, (40, 2))]
    front = {points[i] for i in charts.pareto_front(points)}
    unbeaten = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)}
    assert front == unbeaten
    assert charts.pareto_front([]) == []


def test_scatter_marks_the_front_and_lists_what_it_cannot_show() -> None:
    points = [charts.Point("fast", 10, 0.7), charts.Point("slow", 100, 0.8), charts.Point("bad", 200, 0.6)]
    text = charts.scatter(
        "S", [*points, charts.Point("unknown", math.nan, 0.9)], x="ms", y="Dice", log_x=True, front=True
    )
    rows = re.findall(r'<th scope="row">(\w+)</th>.*?<td>(yes|)</td></tr>', text)
    assert rows == [("fast", "yes"), ("slow", "yes"), ("bad", ""), ("unknown", "")]
    assert len(attributes(text, "circle", "cx")) == 3
    assert "<ol" not in text
    crowd = [charts.Point(f"a point with a long name {i}", 1, 0.5) for i in range(30)]
    assert charts.scatter("S", crowd, x="ms", y="Dice").count("<li>a point") == 30
    assert "<svg" in charts.scatter("S", [], x="ms", y="Dice", log_x=True)


def test_labels_cover_neither_each_other_nor_points() -> None:
    rng = np.random.default_rng(2)
    plot = Plot((0, 1), (0, 1))
    spots = [plot.at(float(a), float(b)) for a, b in rng.random((12, 2))]
    placed = place_labels(spots, [f"p{i}" for i in range(12)], plot)
    assert placed is not None
    boxes = [label.box for label in placed]
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
    for px, py in spots:
        assert not any(x0 < px < x1 and y0 < py < y1 for x0, y0, x1, y1 in boxes)
    assert place_labels([spots[0]] * 9, ["nine of the same"] * 9, plot) is None


def test_numbers() -> None:
    assert [number(v) for v in (0.12345, 12.345, 1234.5, 0, 0.5, math.nan)] == [
        "0.123", "12.3", "1234", "0", "0.5", "-",
    ]  # fmt: skip
