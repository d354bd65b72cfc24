"""A plan that cannot be carried out: the message names the flag that mends it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.config.recipe import load_recipe
from tumorseg_train.training.train import datasets


def test_a_crop_larger_than_the_image_names_the_flag() -> None:
    plan: Any = SimpleNamespace(recipe=load_recipe("quick"), contract=Contract(height=64, width=64))
    with pytest.raises(
        InputError, match=r"^crop is 96, expected at most 64, .*: --set crop=64, or a larger --size$"
    ):
        datasets(plan, SimpleNamespace())  # type: ignore[arg-type]
