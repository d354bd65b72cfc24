"""INT8, accepted by what it decides: as good as PyTorch on images that it was not made with, and faster.

Beside the budget of every image, which also refuses a lesion that appears or vanishes outside of the band:

- **Dice**: the artefact's mean over PyTorch's, against the truth, at least 0.999 by the lower bound of the
  95 % interval (`tumorseg_train.report.noninferiority`); 0.995 where the images are of fewer than 30 groups.
  Where the truth is not known, PyTorch's masks take its place, and 0.99 is asked: every pixel that flips
  then counts as wrong.
- **Limits of amount** (flips for each pixel of the border, HD95) are overruled by a Dice that is shown over
  at least 30 groups of known truth.
- **Time**: one image, in turn with ONNX Runtime in FP32 on the same machine. The median of the ratios must
  lie below 1 with its whole interval (order statistics, 95 %: Conover 1999, 3.2).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_export.references.acceptance_images import Judged
from tumorseg_runtime.core.errors import ParityError
from tumorseg_runtime.core.session import Session
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.check_prediction import Predicted
from tumorseg_runtime.parity.compare import ParityReport, logit_scale, mask_dice
from tumorseg_runtime.parity.replay import ONE_BY_ONE, replay
from tumorseg_runtime.parity.report import summary
from tumorseg_runtime.processing.decision import decide
from tumorseg_train.report.noninferiority import (
    FEWEST_GROUPS,
    LEAST,
    PASSED,
    NonInferiority,
    judge_noninferiority,
)

FEW, UNKNOWN = 0.995, 0.99  # least ratio over few groups, and against PyTorch's masks
ROUNDS = 15
BOUNDS = (3, 11)  # of 15 sorted values, what the median lies between with 96.5 %


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of one image in each round, and the artefact's over FP32's: median, low and high."""

    fp32: tuple[float, ...]
    artefact: tuple[float, ...]
    ratio: float
    low: float
    high: float

    @classmethod
    def of(cls, fp32: Sequence[float], artefact: Sequence[float]) -> Times:
        """Of `ROUNDS` rounds."""
        ratios = np.sort(np.array(artefact) / np.array(fp32))
        low, high = (float(ratios[place]) for place in BOUNDS)
        return cls(tuple(fp32), tuple(artefact), float(np.median(ratios)), low, high)


def check_decisions(
    door: Segmenter, judged: Judged, scale: float, artefact: str
) -> tuple[ParityReport, NonInferiority]:
    """The report over the judged images and the verdict on the task; raises ParityError where either refuses.

    scale: standard deviation of PyTorch's logits, the unit of errors.
    """
    pairs: dict[int, tuple[float, float]] = {}

    def each(index: int, prediction: Predicted) -> None:
        truth = judged.truths[index]
        if prediction.own_logits is not None and truth.any():
            both = (judged.images[index].logits, prediction.own_logits)
            ours, theirs = (
                mask_dice(np.asarray(decide(one, door.contract).any(axis=0)), truth) for one in both
            )
            pairs[index] = ours, theirs

    report = replay(
        door, judged.images, BUDGETS["int8"], ONE_BY_ONE, artefact=artefact, scale=scale, each=each
    )
    where = f"{artefact} under {report.backend} on {report.device}"
    if not pairs:
        raise ParityError(
            f"{where}: none of the {len(judged.images)} images that judge INT8 has a tumour, expected some: "
            "give --images with tumours, or leave out its target"
        )
    order = sorted(pairs)
    pytorch, ours = np.array([pairs[index] for index in order]).T
    groups = [judged.groups[index] for index in order]
    few = len(set(groups)) < FEWEST_GROUPS
    task = judge_noninferiority(pytorch, ours, groups, UNKNOWN if not judged.known else FEW if few else LEAST)
    if task.status != PASSED:
        raise ParityError(f"{where}: {task.line}: {REMEDY}")
    seen = {judged.images[index].name for index in order}
    broken = {image.image for image in report.images if image.breaches}
    overruled = report.only_amounts and judged.known and not few and broken <= seen
    if not (report.passed or overruled):
        raise ParityError(f"{where}: {summary(report.breaches)}: {REMEDY}")
    return report, task


REMEDY = "raise --calibration, or leave out its target"


def time_against(
    fp32: Session,
    artefact: Session,
    tensor: npt.NDArray[np.float32],
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """One image in turn by both sessions, after one round that does not count. tensor: float32 (C, H, W)."""
    seconds: tuple[list[float], list[float]] = [], []
    for number in range(ROUNDS + 1):
        for session, found in zip((fp32, artefact), seconds, strict=True):
            started = clock()
            session.infer(tensor[None])
            if number:
                found.append(clock() - started)
    return Times.of(*seconds)


class SlowError(ParityError):
    """An artefact that decides rightly and gains nothing here."""


def refuse_slow(times: Times, artefact: str, report: ParityReport) -> None:
    """Raise SlowError where the artefact is not faster than FP32 here."""
    if times.high >= 1:
        raise SlowError(
            f"{artefact} under {report.backend} on {report.device}: takes {times.ratio:.2f} "
            f"({times.low:.2f}-{times.high:.2f}) of the time of FP32 under ONNX Runtime on this machine, "
            "expected less than 1 with the whole interval: leave out its target, or export on the machine "
            "that serves"
        )


def figures(task: NonInferiority, times: Times) -> dict[str, Any]:
    """What the certificate says beside the report."""
    return {"task": task.to_dict(), "time": dataclasses.asdict(times)}


def unit_of(judged: Judged) -> float:
    """Standard deviation of PyTorch's logits over the judged images."""
    return logit_scale([image.logits for image in judged.images])
