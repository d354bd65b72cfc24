"""One call from encoded images to lesions, with the time of each stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.variants.inputs import EncodedImage
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.session import Session
from tumorseg_runtime.processing.postprocess import find_lesions, masks_from_logits
from tumorseg_runtime.processing.preprocess import Preprocessor

STAGES = ("decode", "preprocess", "infer", "postprocess")
PARTS = ("upload", "compute", "download")  # of 'infer', where a session takes its steps one by one
Clock = Callable[[], int]  # nanoseconds


@runtime_checkable
class StagedSession(Protocol):
    """A session of a GPU that takes the steps of `infer` one by one, each finished when it returns."""

    def upload(self, batch: npt.NDArray[np.float32]) -> Any:
        """float32 (N, C, H, W) in host memory -> the same in the GPU's."""

    def compute(self, batch: Any) -> Any:
        """What `upload` gave -> logits in the GPU's memory."""

    def download(self, logits: Any) -> npt.NDArray[np.float32]:
        """What `compute` gave -> float32 (N, K, H, W) in host memory."""


def staged_call(
    session: Session,
    contract: Contract,
    preprocess: Preprocessor,
    images: Sequence[EncodedImage],
    clock: Clock = time.perf_counter_ns,
) -> dict[str, int]:
    """Segment a batch of images as a device does; returns nanoseconds by stage.

    'infer' is from a float32 batch in host memory to logits in host memory, so that a GPU's transfers count;
    the four stages add up to the end-to-end time. The parts of 'infer' are there where the session has them.
    """
    start = clock()
    pixels = [image.pixels() for image in images]
    decoded = clock()
    batch = np.stack([preprocess(array) for array in pixels])
    preprocessed = clock()
    parts: dict[str, int] = {}
    if isinstance(session, StagedSession):
        there = session.upload(batch)
        uploaded = clock()
        result = session.compute(there)
        computed = clock()
        logits = session.download(result)
        inferred = clock()
        marks = (preprocessed, uploaded, computed, inferred)
        parts = {part: marks[i + 1] - marks[i] for i, part in enumerate(PARTS)}
    else:
        logits = session.infer(batch)
        inferred = clock()
    for array, one in zip(pixels, logits, strict=True):
        masks = masks_from_logits(one, contract, *array.shape[:2])
        for mask, label in zip(masks, contract.classes, strict=True):
            find_lesions(mask, label)
    marks_of_all = (start, decoded, preprocessed, inferred, clock())
    return {stage: marks_of_all[i + 1] - marks_of_all[i] for i, stage in enumerate(STAGES)} | parts
