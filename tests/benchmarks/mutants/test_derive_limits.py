"""Limits are derived from what right artefacts err by."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click.testing
import numpy as np
import pytest

from tumorseg_benchmarks.mutants import derive_limits
from tumorseg_benchmarks.mutants.derive_limits import ANYTHING, figures, judged, main
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.parity.budget import BUDGETS, Budget
from tumorseg_runtime.parity.compare import compare_image
from tumorseg_runtime.parity.report import ParityReport


def test_every_limit_of_a_budget_is_measured_and_asked_again() -> None:
    ramp = np.tile(np.linspace(-4, 4, 64, dtype=np.float32), (1, 64, 1))
    other = ramp + np.float32(0.2)
    scale = float(ramp.std())
    image = compare_image("ramp", ramp, other, contract=Contract(), scale=scale, budget=ANYTHING)
    report = ParityReport("model.onnx", "onnxruntime", "cpu", "fp32", {}, ANYTHING, scale, (image,))
    assert report.passed
    found = figures(report, free=2)
    asked = {field.name for field in dataclasses.fields(Budget)} - {"free_pixels", "cosine"}
    assert asked | {"1 - cosine"} <= set(found)
    assert found["flipped"] == image.flipped > 2
    assert found["flipped_share"] == pytest.approx(image.flipped / 64**2)
    assert found["relative_error"] == pytest.approx(0.2 / scale, rel=1e-3)
    strict = judged(report, BUDGETS["fp32"])
    assert not strict.passed
    assert any("logit error" in line for line in strict.breaches)
    assert any("for each of" in line for line in strict.breaches)


def test_an_unknown_target_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derive_limits, "trained", lambda folder: pytest.fail("it trains"))
    result = click.testing.CliRunner().invoke(main, ["--targets", "onix", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "onix" in result.output
    assert not (tmp_path / "out").exists()
