"""INT8 is accepted by what it decides on other images and by its time, and by nothing else."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tumorseg_export.checkpoint.context import ExportContext
from tumorseg_export.references.acceptance_images import Judged, choose_judged
from tumorseg_export.targets.int8_acceptance import ROUNDS, Times, check_decisions, refuse_slow, time_against
from tumorseg_runtime.core.errors import ParityError
from tumorseg_runtime.core.session import InProcess, InputForm, SessionInfo
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_train.data.split import Item, Manifest


class Answers(InProcess):
    """A session that gives the network's own logits after `change`."""

    def __init__(self, context: ExportContext, change: Any) -> None:
        self._model, self._change = context.model, change
        self.input, self.info = InputForm(), SessionInfo("onnxruntime", "cpu", "int8", {})

    def infer(self, batch: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return np.asarray(self._change(self._model(torch.from_numpy(batch)).numpy()), np.float32)


def judged_of(context: ExportContext, *, known: bool = True) -> Judged:
    threshold = np.float32(context.contract.logit_threshold)
    truths = tuple((item.logits >= threshold).any(axis=0) for item in context.golden)
    return Judged(context.golden, truths, tuple(item.name for item in context.golden), known)


def door(context: ExportContext, change: Any) -> Segmenter:
    return Segmenter(context.contract, Answers(context, change), 1)


def test_equal_decisions_pass(small_context: ExportContext) -> None:
    report, task = check_decisions(
        door(small_context, lambda logits: logits), judged_of(small_context), 1.0, "file"
    )
    assert report.passed
    assert (task.ratio, task.least) == (1, 0.995)


@pytest.mark.parametrize(("known", "least"), [(True, "0.995"), (False, "0.99")])
def test_worse_masks_are_refused_by_the_rule_of_what_is_known(
    small_context: ExportContext, known: bool, least: str
) -> None:
    def shifted(logits: np.ndarray) -> np.ndarray:
        return logits + np.float32(0.3 * logits.std())

    with pytest.raises(ParityError, match=rf"at least {least}: raise --calibration, or leave out its target"):
        check_decisions(door(small_context, shifted), judged_of(small_context, known=known), 1.0, "file")


def test_images_without_a_tumour_judge_nothing(small_context: ExportContext) -> None:
    judged = judged_of(small_context)
    empty = dataclasses.replace(judged, truths=tuple(np.zeros_like(one) for one in judged.truths))
    with pytest.raises(ParityError, match="none of the 3 images that judge INT8 has a tumour, expected some"):
        check_decisions(door(small_context, lambda logits: logits), empty, 1.0, "file")


def test_what_is_not_faster_with_its_whole_interval_is_refused(small_context: ExportContext) -> None:
    report, _ = check_decisions(
        door(small_context, lambda logits: logits), judged_of(small_context), 1.0, "file"
    )
    refuse_slow(Times.of([1.0] * ROUNDS, [0.5] * 12 + [1.5] * 3), "file", report)
    scattered = Times.of([1.0] * ROUNDS, [0.5] * 10 + [1.5] * 5)
    assert (scattered.ratio, scattered.low, scattered.high) == (0.5, 0.5, 1.5)
    with pytest.raises(
        ParityError, match=r"takes 0\.50 \(0\.50-1\.50\) of the time of FP32 .* expected less"
    ):
        refuse_slow(scattered, "file", report)


def test_times_are_taken_in_turn(small_context: ExportContext) -> None:
    ticks = itertools.accumulate(itertools.cycle([1.0, 4.0, 1.0, 2.0]))
    session = Answers(small_context, lambda logits: logits)
    times = time_against(session, session, small_context.golden[0].tensor, lambda: next(ticks))
    # the first pair is not asked of the clock for its end, which shifts the pattern
    assert len(times.fp32) == len(times.artefact) == ROUNDS
    assert times.ratio == pytest.approx(float(np.median(np.array(times.artefact) / np.array(times.fp32))))


def test_judges_share_no_group_and_no_bytes_with_calibration(tmp_path: Path) -> None:
    def item(number: int, part: str, group: str, content: str) -> Item:
        name = f"{number}.png"
        return Item(
            image=name, masks=(), organ="brain", label="tumour", part=part, height=8, width=8,
            tumour_px=1, files={name: content}, group=group,
        )  # fmt: skip

    calibration = item(0, "val", "a", "0")
    others = [
        item(1, "val", "a", "1"),
        item(2, "val", "", "0"),
        item(3, "val", "b", "3"),
        item(4, "test", "", "4"),
    ]
    chosen = choose_judged(Manifest(tmp_path, 0, (calibration, *others)), [calibration])
    assert [one.image for one in chosen] == ["4.png", "3.png"]
