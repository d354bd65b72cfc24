import typing

import pytest

from tumorseg_train.config.recipe import Schedule
from tumorseg_train.training.lightning_module import FLOOR, SHAPES, factor


@pytest.mark.parametrize("schedule", typing.get_args(Schedule))
def test_climbs_to_the_peak_and_never_rises_again(schedule: str) -> None:
    rates = [factor(step, 200, 0.1, schedule) for step in range(200)]
    assert rates[:20] == sorted(rates[:20])
    assert rates[0] < 0.06
    assert rates[20] == pytest.approx(1)
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[-1] == pytest.approx(1 if schedule == "constant" else FLOOR)


def test_shapes_are_those_that_a_recipe_may_name() -> None:
    assert tuple(SHAPES) == typing.get_args(Schedule)
    assert factor(50, 101, 0, "linear") == pytest.approx(FLOOR + (1 - FLOOR) / 2)
    assert factor(25, 101, 0, "cosine") == pytest.approx(FLOOR + (1 - FLOOR) * 0.853553, rel=1e-4)


def test_a_single_step_has_a_rate() -> None:
    assert factor(0, 1, 0.5, "cosine") == pytest.approx(1)
