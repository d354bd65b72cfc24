"""Programs that decide on the null GPU: by the kernel itself, and through the one loop of parity."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from gpu_null.engines import CONTRACT
from gpu_null.masks import BATCH, OWN, SIZES, door, images, session
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.device.cuda import Pair, open_gpu
from tumorseg_runtime.inference.prediction import Prediction
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.reference import Golden
from tumorseg_runtime.parity.replay import full_plan, replay
from tumorseg_runtime.processing.decide_cuda import ROUNDING, Decider, blend_table
from tumorseg_runtime.processing.decision import decide
from tumorseg_runtime.processing.postprocess import close_share
from tumorseg_runtime.processing.preprocess import Preprocessor


def of_several_classes(rule: str) -> list[bool]:
    """Decisions over three classes: made-up logits, as every opening asks, and the same with many ties; then
    logits of which one is no number."""
    threshold = 0.6 if rule == "sigmoid" else None
    contract = Contract(height=64, width=96, classes=("a", "b", "c"), threshold=threshold, rule=rule)
    gpu = open_gpu()
    with gpu.current():
        decider, up, back = Decider(contract, gpu, 0.3), Pair(gpu), Pair(gpu)
        made = np.random.default_rng(1).normal(0, 1, (3, *OWN)).astype(np.float32)
        logits = gpu.device_memory(made.nbytes)
        decider.require_same_masks(up, logits, back)
        right = []
        for values in (made, np.round(made), np.round(made) + np.float32(contract.logit_threshold)):
            masks, (broken, unsure, close) = decider.decide(values, OWN, up, logits, back)
            right.append(np.array_equal(masks, decide(values, contract)) and not broken and not unsure)
            right.append(close == round(close_share(values, contract, *OWN, 0.3) * masks.size))
        made[1, 3, 3] = np.nan
        right.append(decider.decide(made, OWN, up, logits, back)[1][0] == 1)
    return right


def kernels_that_differ() -> list[bool]:
    """A decision that is made otherwise than on the CPU is refused when the bundle is opened."""
    table = blend_table.__wrapped__(CONTRACT.width, 50, False).copy()
    assert ROUNDING < 1e-5 < abs(table["near"]).max()
    from tumorseg_runtime.processing import decide_cuda

    def shifted(n_in: int, n_out: int, vertical: bool) -> np.ndarray:
        table = blend_table(n_in, n_out, vertical).copy()
        table["near"] *= np.float32(1 + 1e-3)
        return table

    decide_cuda.blend_table = shifted  # type: ignore[assignment]
    with session() as on:
        door(on, logits=False)
    return []


def replayed(shift: float) -> list[str]:
    """Breaches of a door that gives masks alone, whose margins are off by `shift`."""
    given = images(6, SIZES)
    on_cpu = Preprocessor(CONTRACT)
    references = []
    for index, pixels in enumerate(given):
        tensor = on_cpu(pixels)
        references.append(Golden(str(index), pixels, tensor, tensor.mean(axis=0, keepdims=True)))
    with session() as on:
        segmenter = door(on, logits=False)
        decide = segmenter.decide

        def wrong(frame: Any, answer: Any) -> Prediction:
            found = decide(frame, answer)
            return dataclasses.replace(found, close=found.close + shift)

        segmenter.decide = wrong  # type: ignore[method-assign]
        report = replay(segmenter, references, BUDGETS["fp32"], full_plan(BATCH), artefact="a test")
    return list(report.breaches)
