from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BundleError, InputError
from tumorseg_runtime.core.records import Format
from tumorseg_train.demo.demo import SHIPPED


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"height": 500}, "input height is 500, expected a positive multiple of 32: use 480 or 512"),
        ({"width": 0}, "use 32 or 64"),
        ({"width": -64}, "positive multiple"),
        ({"height": 512.0}, "integer"),
        ({"mean": (0.5, 0.5)}, "got 2 means and 3 standard deviations"),
        ({"std": (0.1, 0.0, 0.1)}, "std positive"),
        ({"mean": (0.5, float("nan"), 0.5)}, "finite"),
        ({"resize": "cubic"}, "expected one of linear-exact"),
        ({"classes": ()}, "one or more"),
        ({"classes": ("a", "a")}, "different names"),
        ({"classes": ("a/b",)}, "file name"),
        ({"classes": ("..",)}, "file name"),
        ({"threshold": 1.0}, "between 0 and 1"),
        ({"threshold": float("nan")}, "between 0 and 1"),
        ({"threshold": None}, "between 0 and 1"),
        ({"rule": "argmax"}, "rule is 'argmax', expected sigmoid or softmax"),
        ({"rule": "softmax", "classes": ("a", "b")}, "threshold is 0.5, expected none"),
        ({"rule": "softmax", "threshold": None}, "the one class tumour beside the background"),
    ],
)
def test_wrong_values_are_refused_with_the_remedy(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Contract(**fields)


FORMAT = Format("contract", "write it again")


def test_files_from_before_there_were_rules_are_sigmoid() -> None:
    values = Contract(threshold=0.3).to_dict()
    assert values.pop("rule") == "sigmoid"
    assert FORMAT.parse(json.dumps(values), "x", Contract) == Contract(threshold=0.3)
    shipped = Bundle.read_index(SHIPPED)
    assert b'"rule"' not in shipped.index
    assert shipped.contract.rule == "sigmoid"


def test_it_survives_json() -> None:
    exclusive = Contract(classes=("edema", "core"), threshold=None, rule="softmax")
    assert FORMAT.parse(json.dumps(exclusive.to_dict()), "x", Contract) == exclusive
    contract = Contract(height=96, mean=(0.1,), std=(0.7,), classes=("edema", "core"), threshold=0.3)
    assert FORMAT.parse(json.dumps(contract.to_dict()), "x", Contract) == contract


@pytest.mark.parametrize(
    "change",
    [{"gamma": 1}, {"height": "512"}, {"mean": None}, {"mean": ["a", "b", "c"]}, {"threshold": 2}],
)
def test_wrong_dictionaries_are_bundle_errors(change: dict[str, Any]) -> None:
    with pytest.raises(BundleError):
        FORMAT.check({**Contract().to_dict(), **change}, "x", Contract)
    values = Contract().to_dict()
    del values["std"]
    with pytest.raises(BundleError, match="std"):
        FORMAT.check(values, "x", Contract)


def test_the_threshold_on_logits() -> None:
    assert Contract().logit_threshold == 0
    probability = dataclasses.replace(Contract(), threshold=0.8).logit_threshold
    assert probability == pytest.approx(1.3862943611)
