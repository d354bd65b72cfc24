import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.config.plan import InitialWeights, TrainingPlan
from tumorseg_train.config.recipe import load_recipe

INITIAL = InitialWeights("/weights/unet.safetensors", "a" * 64)


@pytest.mark.parametrize("initial", [None, INITIAL])
def test_a_plan_reads_back(initial: InitialWeights | None, tmp_path: Path) -> None:
    plan = TrainingPlan(
        "/data", "unet", "resnet18", Contract(64, 96), load_recipe("cpu"), "cpu", 2, 3, initial
    )
    plan.write(tmp_path)
    assert TrainingPlan.read(tmp_path) == plan
    assert plan.processes == 6


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda plan: plan["recipe"].update(crop=33), "recipe: crop is 33, expected a multiple of 32"),
        (lambda plan: plan["recipe"].pop("flip"), "recipe: lacks the field flip: correct it"),
        (lambda plan: plan["contract"].update(height="64"), "contract.height is '64', expected an integer"),
        (lambda plan: plan.update(devices=True), "devices is True, expected a valid integer"),
        (lambda plan: plan.update(speed=1), "has the unknown field speed"),
        (lambda plan: plan["initial_weights"].update(sha256="b"), "initial_weights.sha256 is 'b', expected"),
        (lambda plan: plan.update(schema=1), "schema is 1, expected 2: train anew, from its weights"),
    ],
)
def test_a_damaged_plan_is_refused(
    damage: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    TrainingPlan(
        "/data", "unet", "resnet18", Contract(64, 64), load_recipe("quick"), "quick", initial_weights=INITIAL
    ).write(tmp_path)
    values = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    damage(values)
    (tmp_path / "plan.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(InputError) as error:
        TrainingPlan.read(tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
