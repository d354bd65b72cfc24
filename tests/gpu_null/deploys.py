"""Programs that serve deploy forms on the null GPU: resized pixels in, masks of the network out."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpu_null.engines import CONTRACT, SHAPE, open_stand_in
from gpu_null.masks import BATCH, OWN, images
from gpu_null.null import Null
from tumorseg_runtime.backends import BACKENDS, onnxruntime
from tumorseg_runtime.backends.tensorrt import GRAY
from tumorseg_runtime.bundle.bundle import Artefact, Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.session import MASKS, InProcess, InputForm, SessionInfo
from tumorseg_runtime.inference.prediction import Prediction
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.processing.preprocess import Preprocessor

TABLE = Preprocessor(CONTRACT).table
GRAYS = [(50, 70), (90, 61), OWN, (128, 192), (33, 48), (7, 300), (400, 300)]
COLOURS = [(50, 70, 3), (90, 61), OWN, (128, 192, 3), (33, 48, 3), (7, 300), (400, 300, 3)]


class OnCpu(InProcess):
    """The network on the CPU: the stand-in's mean, decided, or each plane itself, as a graph that copies."""

    output, info = MASKS, SessionInfo("cpu", "cpu", "fp32", {})

    def __init__(self, form: InputForm, copies: bool) -> None:
        self.input, self._copies = dataclasses.replace(form, memory=("host",)), copies

    def infer(self, batch: np.ndarray) -> np.ndarray:
        if self._copies:
            return batch
        values = TABLE[np.arange(3)[:, None, None], batch]
        return (values.mean(axis=1, keepdims=True) >= 0).astype(np.uint8)


@contextlib.contextmanager
def session(form: str, copy: Path | None) -> Iterator[tuple[Any, Contract]]:
    """The stand-in for TensorRT, or the real ONNX Runtime on a graph that copies bytes."""
    with tempfile.TemporaryDirectory() as folder:
        if copy is None:
            yield open_stand_in(Path(folder), form=form)[1], CONTRACT
            return
        classes = ("gray",) if form == GRAY else ("red", "green", "blue")
        contract = dataclasses.replace(CONTRACT, classes=classes)
        artefact = Artefact(copy.name, form, "fp32", None, {}, ())
        bundle = Bundle(copy.parent, "copy", contract, (artefact,), (), {}, {}, {}, {})
        spec = BACKENDS[f"onnxruntime{form.removeprefix('onnx')}"]
        yield onnxruntime.open_session(spec, bundle, "cuda", "fp32", None), contract


def given_to(form: str, copy: Path | None, count: int, sizes: list[tuple[int, ...]] | None = None) -> Any:
    """Images that the form takes; a graph that copies them gives masks where they are 0 and 1 already."""
    found = images(count, sizes or (GRAYS if form == GRAY else COLOURS))
    return found if copy is None else [one & 1 for one in found]


def right(found: list[Prediction], given: Any, on: Any, contract: Contract, copy: Path | None) -> list[bool]:
    """Has each prediction the masks and lesions that the CPU gives?"""
    on_cpu = Segmenter(contract, OnCpu(on.input, copy is not None), BATCH)
    return [
        np.array_equal(one.masks, other.masks) and one.lesions == other.lesions and one.own_logits is None
        for one, other in zip(found, on_cpu.predict(given), strict=True)
    ]


def serve(form: str, count: int, by_stream: bool, copy: Path | None) -> dict[str, Any]:
    """Counts of `count` batches in steady state, by way of the host and as it serves; images of many sizes
    before, of one size then."""
    null = Null()
    with session(form, copy) as (on, contract):
        given = given_to(form, copy, 14)
        steady = given_to(form, copy, BATCH * (count + 6), [OWN])
        head, tail = steady[: 6 * BATCH], steady[6 * BATCH :]
        before = Segmenter(contract, on, BATCH, preprocess="cpu")
        before.predict(head)
        null.reset()
        before.predict(tail)
        counted = null.counts()
        segmenter = Segmenter(contract, on, BATCH)
        assert (segmenter.gives_masks, segmenter.resizes_masks) == (True, True)
        found = segmenter.predict([*given, *head])
        null.reset()
        if by_stream:
            results = list(segmenter.stream(tail, batch_size=BATCH, max_pending=4))
            found += [result.prediction for result in results]
        else:
            found += segmenter.predict(tail)
        counts, trace = null.counts(), null.trace()
        return {
            "right": right(found, [*given, *steady], on, contract, copy),
            "before": counted,
            "counts": counts,
            "trace": trace,
            "values": int(np.prod(SHAPE[1:])) * len(contract.classes),
        }


def no_decision(copy: Path) -> None:
    """Masks that say of some pixels that nothing was decided, and hold others that are no mask's."""
    with session("onnx-deploy", copy) as (on, contract):
        image = given_to("onnx-deploy", copy, 1, [OWN])[0]
        image[0, :3], image[1, 1] = 255, 7
        Segmenter(contract, on, BATCH).predict([image])
