"""Which layers stay in floating point for the error they do, beside the search's."""

from __future__ import annotations

import pytest

from tumorseg_export.precision.int8_spared import ENOUGH, spared
from tumorseg_export.precision.search import Effect, Unit


def effect(name: str, multiplications: int, error: float) -> Effect:
    return Effect(Unit(name, (name,), multiplications), error)


EFFECTS = (
    effect("decoder", 900, 0.05),
    effect("stem", 5, 0.06),
    effect("depthwise", 15, 0.02),
    effect("small", 80, 0.001),
)


def names(effects: list[Effect]) -> list[str]:
    return [one.unit.layer for one in effects]


def test_the_most_error_for_each_multiplication_goes_first_until_enough() -> None:
    left = (0.05**2 + 0.02**2 + 0.001**2) ** 0.5
    assert names(spared(EFFECTS, 0.0807, 1000)) == ["stem", "depthwise"]
    assert left > ENOUGH
    assert names(spared(EFFECTS, 0.06, 1000)) == ["stem"]
    assert spared(EFFECTS, ENOUGH, 1000) == []


def test_no_more_than_a_small_share_is_kept() -> None:
    kept = spared(EFFECTS, 1.0, 1000)
    assert "decoder" not in names(kept)
    assert sum(one.unit.multiplications for one in kept) <= 80


@pytest.mark.parametrize("error", [0.0, 1.0])
def test_effects_of_nothing_end_it(error: float) -> None:
    spared([effect("layer", 1000, 0.0)], error, 1000)
