"""One call from encoded images to lesions, with the time of each stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from tumorseg_benchmarks.inputs import EncodedImage
from tumorseg_runtime.contract import Contract
from tumorseg_runtime.postprocess import find_lesions, masks_from_logits
from tumorseg_runtime.preprocess import Preprocessor
from tumorseg_runtime.session import Session

STAGES = ("decode", "preprocess", "infer", "postprocess")
Clock = Callable[[], int]  # nanoseconds


def staged_call(
    session: Session,
    contract: Contract,
    preprocess: Preprocessor,
    images: Sequence[EncodedImage],
    clock: Clock = time.perf_counter_ns,
) -> dict[str, int]:
    """Segment a batch of images as a device does; returns nanoseconds by stage.

    'infer' is `session.infer` alone, from a float32 batch in host memory to logits in host memory, so that a
    GPU's transfers count; the four stages add up to the end-to-end time.
    """
    start = clock()
    pixels = [image.pixels() for image in images]
    decoded = clock()
    batch = np.stack([preprocess(array) for array in pixels])
    preprocessed = clock()
    logits = session.infer(batch)
    inferred = clock()
    for array, one in zip(pixels, logits, strict=True):
        masks = masks_from_logits(one, contract, *array.shape[:2])
        for mask, label in zip(masks, contract.classes, strict=True):
            find_lesions(mask, label)
    marks = (start, decoded, preprocessed, inferred, clock())
    return {stage: marks[i + 1] - marks[i] for i, stage in enumerate(STAGES)}
