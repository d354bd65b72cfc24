"""A page in a real Chromium: both widths and themes, by keyboard, without script, and by axe-core's rules.

Needs chromium and the folder of `tests/browser/make_env.sh` (build/browser, or TUMORSEG_BROWSER).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tumorseg_train.data.phantoms import draw_brain, draw_breast
from tumorseg_train.report import charts, page
from tumorseg_train.report.case_view import page_case

ROOT = Path(__file__).parents[2]
ENV = Path(os.environ.get("TUMORSEG_BROWSER", ROOT / "build" / "browser"))


def sample() -> str:
    """Everything that a page can hold, made of phantoms."""
    cases = []
    for seed in range(4):
        draw = draw_breast if seed % 2 else draw_brain
        pixels, truth = draw(np.random.default_rng(seed), (256, 256), 1)
        cases.append(page_case(f"phantom {seed}", "Dice 0.9", pixels, truth, np.roll(truth, 5, axis=1)))
    states = (page.PASSED, page.REFUSED, page.UNVERIFIED)
    rows = [
        (f"ONNX {state}, ONNX Runtime CPU", page.badge(state), "0.001", "reason " * 12) for state in states
    ]
    points = [charts.Point(f"artefact {i}", 5 + i, 0.7 + i / 100) for i in range(23)]
    drawn = [
        charts.bars("Speed", [charts.Bar("a", 1.0, 0.9, 1.1)], unit="times"),
        charts.scatter("Pareto", points, x="ms", y="Dice", log_x=True, front=True),
    ]
    wide = page.table([f"column {i}" for i in range(20)], [["cell"] * 20] * 2, label="wide")
    return page.page(
        "Sample",
        page.Verdict(page.REFUSED, "One artefact breaks parity."),
        page.table(("artefact", "verdict", "error>", "why"), rows, label="Artefacts", cards=True),
        cases=cases,
        folded=[("Charts", page.side_by_side(drawn)), ("A wide table", wide)],
        banner="The load was 3.2.",
    )


@pytest.mark.slow
@pytest.mark.process
def test_a_page_in_chromium(tmp_path: Path) -> None:
    if not shutil.which("chromium") or not (ENV / "venv").is_dir():
        pytest.skip(f"no chromium, or no {ENV}: tests/browser/make_env.sh makes it")
    file = tmp_path / "sample.html"
    file.write_text(sample(), encoding="utf-8")
    axe = ENV / "node_modules/axe-core/axe.min.js"
    command = [ENV / "venv/bin/python", ROOT / "tests/browser/look.py", file, "--axe", axe]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"sample.html": []}
