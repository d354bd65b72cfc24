"""The whole command, on a network that was trained for a few steps, and what an export makes of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tumorseg_export.bundle.export import export_run
from tumorseg_runtime import Segmenter
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BundleError, InputError
from tumorseg_runtime.processing.input_guard import FILE, STATISTICS, InputGuard
from tumorseg_train.commands.calibrate import calibrate
from tumorseg_train.monitoring.guard_fit import fit_guard
from tumorseg_train.networks.run import Run

SCHEMA = Path(__file__).parents[3] / "docs/schemas/calibrate.schema.json"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(calibrate, [str(argument) for argument in arguments])


def a_guard(split_sha256: str) -> InputGuard:
    random = np.random.default_rng(0)
    values = random.normal(50, 9, (60, len(STATISTICS)))
    return fit_guard(split_sha256, values, np.zeros(60), ["brain"] * 60, [str(n) for n in range(60)])


@pytest.fixture
def run(tiny_run: Run, tmp_path: Path) -> Run:
    shutil.copytree(tiny_run.root, tmp_path / "run")
    return Run.open(tmp_path / "run")


@pytest.mark.slow
def test_a_temperature_is_written_into_the_run_and_is_the_same_again(run: Run, tiny_run: Run) -> None:
    values: dict[str, Any] = {}
    for _ in range(2):
        result = invoke(run.root, "--no-guard", "--json")
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert found.keys() == set(json.loads(SCHEMA.read_text(encoding="utf-8"))["properties"])
        assert found["guard"] is None
        assert found["temperature"] == values.get("temperature", found["temperature"])
        values = found
    after = Run.open(run.root)
    assert after.contract == dataclasses.replace(
        tiny_run.contract, temperature=values["temperature"]["after"]
    )
    assert after.contract.temperature != 1
    parts = values["temperature"]["parts"]
    assert parts["val"]["after"]["all"]["loss"] <= parts["val"]["before"]["all"]["loss"]
    assert after.metrics["temperature"] == values["temperature"]
    assert after.guard() is None


def test_too_few_images_are_one_line_and_nothing_is_written(run: Run) -> None:
    before = (run.root / "run.json").read_bytes()
    result = invoke(run.root)
    assert isinstance(result.exception, InputError)
    assert "training images in" in str(result.exception)
    assert (run.root / "run.json").read_bytes() == before
    assert not (run.root / FILE).exists()
    assert isinstance(invoke(run.root, "--no-guard", "--no-temperature").exception, InputError)


def test_a_guard_of_another_split_is_refused(run: Run) -> None:
    (run.root / FILE).write_text(a_guard("0" * 64).to_text(), encoding="utf-8")
    with pytest.raises(BundleError, match="is of another split"):
        run.guard()


@pytest.mark.slow
def test_an_export_has_both_and_proves_what_it_proved_before(
    run: Run, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    guard = a_guard(run.data["split_sha256"])
    (run.root / FILE).write_text(guard.to_text(), encoding="utf-8")
    dataclasses.replace(run, contract=dataclasses.replace(run.contract, temperature=2.0)).write()
    bundle = export_run(Run.open(run.root), tmp_path / "bundle", targets=("onnx",))
    assert FILE in bundle.files
    assert bundle.contract.temperature == 2.0
    card = (bundle.root / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "input guard" in card
    assert "temperature 2" in card
    with (
        Segmenter.open(bundle) as watching,
        Segmenter.open(tiny_bundle) as plain,
    ):
        assert watching.guard == guard
        image = np.random.default_rng(0).integers(0, 256, (70, 90), np.uint8)
        one, other = watching.predict(image), plain.predict(image)
        np.testing.assert_array_equal(one.logits, other.logits)
        np.testing.assert_array_equal(one.masks, other.masks)
        assert one.input_check is not None
        assert one.input_check.flagged
