from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tumorseg_benchmarks.parity.references import find_thinnest, margin_of, split_reference
from tumorseg_benchmarks.variants.pytorch import PyTorchSession
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.compare import compare_image

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

FP32 = BUDGETS["fp32"]
CONTRACT = Contract(threshold=1 / (1 + math.exp(-0.5)))
EDGE = np.float32(CONTRACT.logit_threshold)


def test_a_margin_is_the_error_that_breaks_the_budget() -> None:
    rows, columns = np.mgrid[:64, :64]
    disc = 12 - np.hypot(rows - 31, columns - 31) + np.random.default_rng(0).uniform(-0.1, 0.1, (64, 64))
    logits = disc.astype(np.float32)[None]
    margin = margin_of(logits, CONTRACT, FP32)
    nearest = np.sort(np.abs(logits.astype(np.float64) - EDGE), axis=None)
    assert margin == nearest[FP32.free_pixels]  # two may flip, the third may not
    towards = np.sign(EDGE - logits).astype(np.float32)
    for error, broken in ((margin * 0.99, False), (margin * 1.01, True)):
        wrong = logits + towards * np.float32(error)
        found = compare_image("a", logits, wrong, contract=CONTRACT, scale=1e9, budget=FP32)
        assert bool(found.breaches) is broken
    assert margin_of(np.zeros((1, 1, 2), np.float32), CONTRACT, FP32) == float("inf")  # nothing to break


def test_the_thinnest_of_a_split_come_first(tiny_run: Run) -> None:
    session = PyTorchSession(tiny_run.model(), "cpu")
    every = split_reference(tiny_run, session, "test", 0)
    margins = [margin_of(logits, tiny_run.contract, FP32) for logits in every.logits]
    order = [every.images[index].name for index in np.argsort(margins)]
    items, found = find_thinnest(tiny_run, session, "test", 2, FP32)
    assert [item.image for item in items] == order[:2] == [margin.image for margin in found]
    assert [margin.logits for margin in found] == sorted(margins)[:2]
    both = split_reference(tiny_run, session, "test", 0, items)
    assert [image.name for image in both.images][:2] == order[:2]
    assert {image.name for image in both.images} == {image.name for image in every.images}
    assert len(both.images) == len(every.images) == len(both.groups)
    for index, image in enumerate(both.images):
        before = [one.name for one in every.images].index(image.name)
        np.testing.assert_array_equal(both.logits[index], every.logits[before])
        assert both.truth is not None
        assert every.truth is not None
        np.testing.assert_array_equal(both.truth(index), every.truth(before))
    assert any(both.truth(index).any() for index in range(len(both.images)) if both.truth)
