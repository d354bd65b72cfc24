from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.read import write_png
from tumorseg_runtime.processing.input_guard import STATISTICS
from tumorseg_train.data.split import Item, Manifest
from tumorseg_train.monitoring.guard_fit import fit_guard
from tumorseg_train.monitoring.guard_trial import DAMAGE, OWN, measure_all, trial

COUNT = len(STATISTICS)
RANDOM = np.random.default_rng(5)
SHARED = RANDOM.normal(0, 1, (COUNT, COUNT))


def drawn(number: int, shift: float = 0.0) -> np.ndarray:
    """Statistics that depend on each other."""
    return np.asarray(RANDOM.normal(0, 1, (number, COUNT)) @ SHARED * 5 + 50 + shift)


def test_false_alarms_are_as_rare_as_the_limit_says_and_a_broken_dependence_is_found() -> None:
    groups = [str(number // 4) for number in range(800)]
    guard = fit_guard("0" * 64, drawn(800), np.zeros(800), ["brain"] * 800, groups)
    alarms = sum(guard.judge(row, 0.0).flagged for row in drawn(2000))
    assert alarms <= 30  # 0.5 % are expected, 10
    shuffled = RANDOM.permuted(drawn(200), axis=0)  # each statistic by itself is as usual
    assert sum(guard.judge(row, 0.0).flagged for row in shuffled) > 190
    assert guard.judge(drawn(1)[0], 5.0).flagged  # colour, where the training images have none


def test_the_nearest_organ_counts() -> None:
    values, organs = np.concatenate([drawn(100), drawn(100, 900)]), ["a"] * 100 + ["b"] * 100
    groups = [str(number) for number in range(200)]
    guard = fit_guard("0" * 64, values, np.zeros(200), organs, groups)
    assert guard.judge(drawn(1, 900)[0], 0.0).nearest == "b"
    assert guard.judge(drawn(1, 450)[0], 0.0).flagged
    with pytest.raises(InputError, match="b has 20 training images"):
        fit_guard("0" * 64, values[:120], np.zeros(120), organs[:120], groups[:120])
    with pytest.raises(InputError, match="in 1 groups"):
        fit_guard("0" * 64, values[:100], np.zeros(100), organs[:100], ["one"] * 100)


@pytest.mark.slow
def test_the_trial_counts_false_alarms_damage_and_other_organs(tmp_path: Path) -> None:
    items, random = [], np.random.default_rng(1)
    y, x = np.mgrid[:60, :80]
    for organ, bright in (("brain", 60), ("breast", 160)):
        for number in range(100):
            name = f"{organ}{number}.png"
            centre = random.uniform(0.4, 0.6, 2) * (60, 80)
            disc = np.hypot(y - centre[0], x - centre[1]) < 20
            picture = random.normal(30, 5, (60, 80)) + disc * (bright + random.normal(0, 6))
            write_png(tmp_path / name, np.clip(picture, 0, 255).astype(np.uint8))
            part = "test" if number % 5 == 0 else "train"
            items.append(Item(name, (), organ, "tumour", part, 60, 80, 0, {name: ""}, group=name))
    manifest = Manifest(tmp_path, 0, tuple(items))
    measured = measure_all(manifest)
    rows = trial(measured, "0" * 64)
    assert {row["guard"] for row in rows} == {"brain", "breast", "all"}
    for row in rows:
        many = row["judged"] == "folds"
        assert row["images"] == (200 if row["guard"] == "all" else 100) // (1 if many else 5)
        if row["shown"] == OWN:
            assert row["flagged"] <= row["images"] * 0.05
            assert row["at_most"] > row["flagged"] / row["images"]
        else:
            assert row["flagged"] >= row["images"] * 0.9, row
    assert {row["shown"] for row in rows} == {OWN, *DAMAGE, "other organs"}
    again = measure_all(dataclasses.replace(manifest, items=manifest.items[:3]))
    np.testing.assert_array_equal(again.values["noise"][0], measured.values["noise"][0][:3])
