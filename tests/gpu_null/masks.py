"""Programs that serve masks by the GPU alone, on the null GPU."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gpu_null.engines import CONTRACT, open_stand_in
from gpu_null.null import Null
from tumorseg_runtime.inference.gpu_masks import GpuMasks
from tumorseg_runtime.processing.postprocess import masks_from_logits
from tumorseg_runtime.processing.preprocess import Preprocessor
from tumorseg_runtime.processing.preprocess_cuda import open_preprocessor

BATCH = 2


def batches(count: int) -> list[list[np.ndarray]]:
    """Gray and RGB images of two sizes, others in every batch."""
    random = np.random.default_rng(0)
    shapes = [(50, 70, 3), (90, 61)]
    return [[random.integers(0, 256, shape, np.uint8) for shape in shapes] for _ in range(count)]


def expected(images: list[np.ndarray]) -> np.ndarray:
    """What the stand-in's mean of the channels decides on the CPU."""
    made = []
    for image in images:
        logits = Preprocessor(CONTRACT)(image)[None].mean(axis=1)
        made.append(masks_from_logits(logits, CONTRACT, CONTRACT.height, CONTRACT.width))
    return np.stack(made)


def before(count: int) -> dict[str, Any]:
    """The way by preprocessor and session: counts of `count` batches in steady state, and their trace."""
    with tempfile.TemporaryDirectory() as folder:
        _, session = open_stand_in(Path(folder), rtx=False)
    preprocess, null = open_preprocessor(CONTRACT), Null()
    given = batches(count + 2)
    tensor = preprocess(given[0])
    session.infer(tensor)
    session.infer(preprocess(given[1], out=tensor))
    null.reset()
    for images in given[2:]:
        session.infer(preprocess(images, out=tensor))
    return {"counts": null.counts(), "trace": null.trace()}


def after(count: int) -> dict[str, Any]:
    """The same by `GpuMasks`, and whether every mask is right."""
    with tempfile.TemporaryDirectory() as folder:
        _, session = open_stand_in(Path(folder), rtx=False)
    masks, null = GpuMasks(session, CONTRACT), Null()
    given = batches(count + 6)
    right = [
        np.array_equal(got, expected(images))
        for got, images in zip(masks.predict(given[:6]), given[:6], strict=True)
    ]
    null.reset()
    found = list(masks.predict(given[6:]))
    counts, trace = null.counts(), null.trace()
    right += [np.array_equal(got, expected(images)) for got, images in zip(found, given[6:], strict=True)]
    return {"right": right, "counts": counts, "trace": trace}


def other_sizes() -> list[bool]:
    """Batches of one and two images by turns, and one that is larger than the staging memory was."""
    with tempfile.TemporaryDirectory() as folder:
        _, session = open_stand_in(Path(folder), rtx=False)
    masks = GpuMasks(session, CONTRACT)
    given = batches(12)
    for index in range(0, 12, 2):
        given[index] = given[index][:1]
    given[9] = [np.random.default_rng(1).integers(0, 256, (400, 300, 3), np.uint8)] * 2
    return [
        np.array_equal(got, expected(images)) for got, images in zip(masks.predict(given), given, strict=True)
    ]


def not_finite() -> list[bool]:
    """An engine whose logits become infinite."""
    with tempfile.TemporaryDirectory() as folder:
        _, session = open_stand_in(Path(folder), rtx=False)
    masks = GpuMasks(session, CONTRACT)
    session._execution.context._engine.gain = float("inf")
    return [bool(got.any()) for got in masks.predict(batches(1))]
