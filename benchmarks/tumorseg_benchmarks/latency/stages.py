"""One call from encoded images to lesions, with the time of each stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.variants.inputs import EncodedImage
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.session import Session
from tumorseg_runtime.processing.postprocess import find_lesions, masks_from_logits
from tumorseg_runtime.processing.preprocess import Preprocessor

STAGES = ("decode", "preprocess", "infer", "postprocess")
PARTS = ("upload", "compute", "download")  # of 'infer', where a session knows them
Clock = Callable[[], int]  # nanoseconds


@runtime_checkable
class PartedSession(Protocol):
    """A session of a GPU that knows how long the parts of its last batch took, by the GPU's own clock."""

    @property
    def parts(self) -> dict[str, int]:
        """Nanoseconds of upload, compute and download; the network alone, or all kernels of `serve`."""


@runtime_checkable
class ServedSession(Protocol):
    """A session that takes pixels and gives masks, as `Segmenter` does on a GPU."""

    def serve(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.bool_]]:
        """uint8 (H, W) or (H, W, 3) of any sizes -> bool masks (K, H, W) at each image's own size."""


def staged_call(
    session: Session,
    contract: Contract,
    preprocess: Preprocessor,
    images: Sequence[EncodedImage],
    clock: Clock = time.perf_counter_ns,
) -> dict[str, int]:
    """Segment a batch of images as a device does; returns nanoseconds by stage.

    'infer' is from a float32 batch in host memory to logits in host memory, so that a GPU's transfers count;
    of a `ServedSession` from pixels to masks, preprocessing and decision included. The four stages add up to
    the end-to-end time. The parts of 'infer' are there where the session knows them.
    """
    start = clock()
    pixels = [image.pixels() for image in images]
    decoded = clock()
    if isinstance(session, ServedSession):
        preprocessed = decoded
        found = session.serve(pixels)
        inferred = clock()
    else:
        batch = np.stack([preprocess(array) for array in pixels])
        preprocessed = clock()
        logits = session.infer(batch)
        inferred = clock()
        found = [
            masks_from_logits(one, contract, *array.shape[:2])
            for array, one in zip(pixels, logits, strict=True)
        ]
    for masks in found:
        for mask, label in zip(masks, contract.classes, strict=True):
            find_lesions(mask, label)
    marks_of_all = (start, decoded, preprocessed, inferred, clock())
    parts = session.parts if isinstance(session, PartedSession) else {}
    return {stage: marks_of_all[i + 1] - marks_of_all[i] for i, stage in enumerate(STAGES)} | parts
