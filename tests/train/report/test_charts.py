import dataclasses
import math
import re

import numpy as np

from tumorseg_train.report import charts

NAMES = re.compile(r"<text[^>]*>(.*?)</text>")


def test_a_chart_is_inline_of_both_themes_and_the_same_each_time() -> None:
    rows = [charts.Bar("a", 0.5, 0.4, 0.6), charts.Bar("<b> $x$", 0.25), charts.Bar("c", math.nan)]
    text = charts.bars("Dice", rows, unit="Dice", top=1)
    assert text == charts.bars("Dice", rows, unit="Dice", top=1)
    assert "var(--c0)" in text
    assert "var(--ink)" in text
    assert not re.findall(r"#0000[01][0-9]", text), "no stand-in is left"
    assert not re.findall(r"https?:|xmlns|<metadata", text)
    assert "&lt;b&gt; $x$: 0.25" in text
    assert "<svg" in charts.bars("Long", [charts.Bar("a name of many words " * 9, 0.5)])
    assert 'aria-label="Dice, bars: a 0.5; &lt;b&gt; $x$ 0.25; c -"' in text


def test_histogram_and_lines_say_what_they_show() -> None:
    text = charts.histogram("H", [0, 0.1, 0.5, 1, math.nan], x="Dice", edges=[0, 0.5, 1])
    assert "histogram of Dice: 4 values, median 0.3" in text
    assert "0 values" in charts.histogram("H", [], x="Dice", edges=[0, 1])
    drawn = charts.lines(
        "L", {"one": [(0, 0), (1, 1)], "two": []}, x="p", y="q", limits=(0, 1), diagonal=True
    )
    assert {"one", "two", "p", "q"} <= set(NAMES.findall(drawn))


def test_front_is_what_nobody_beats() -> None:
    rng = np.random.default_rng(1)
    points = [(float(a), float(b)) for a, b in rng.integers(0, 8, (40, 2))]
    front = {points[i] for i in charts.pareto_front(points)}
    unbeaten = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)}
    assert front == unbeaten
    assert charts.pareto_front([]) == []


def test_a_crowd_of_points_names_only_its_front() -> None:
    points = [charts.Point(f"point {i}", 10 + i, 0.5 + (0.1 if i == 3 else 0) - i / 1000) for i in range(23)]
    text = charts.scatter("S", points, x="ms", y="Dice", log_x=True, front=True)
    assert re.findall(r"<li>(.*?)</li>", text) == ["1: point 0", "2: point 3"]
    assert {"1", "2", "10", "20"} <= set(NAMES.findall(text)), "numbers, and ticks in plain figures"
    few = charts.scatter("S", points[:3], x="ms", y="Dice", front=True)
    assert re.findall(r"<li>(.*?)</li>", few) == ["1: point 0", "2: point 1", "3: point 2"]
    assert "<svg" in charts.scatter("S", [], x="ms", y="Dice", log_x=True)
    kinds = [
        dataclasses.replace(p, kind="a network with a rather long name " * (1 + i % 3))
        for i, p in enumerate(points)
    ]
    assert "<svg" in charts.scatter("S", kinds, x="ms", y="Dice", log_x=True, front=True)
    unknown = charts.scatter("S", [charts.Point("u", math.nan, 0.9)], x="ms", y="Dice")
    assert "<li>" not in unknown


def test_points_of_one_x_have_ticks_and_room_on_a_logarithmic_axis() -> None:
    for values in ((5.85, 5.85), (5.6, 5.9), (5.85,)):
        points = [charts.Point(f"p{i}", value, 0.7 + i / 10) for i, value in enumerate(values)]
        text = charts.scatter("S", points, x="GFLOP", y="Dice", log_x=True, front=True)
        assert [tick for tick in range(3, 10) if f">{tick}<" in text] == [4, 5, 6, 7, 8]


def test_where_matplotlib_is_absent_a_line_says_so(monkeypatch) -> None:
    monkeypatch.setattr(charts.importlib.util, "find_spec", lambda name: None)
    text = charts.bars("Speed", [charts.Bar("a", 1.0)])
    assert "Speed: not drawn, since matplotlib is not installed: pip install" in text
    assert "<svg" not in text
