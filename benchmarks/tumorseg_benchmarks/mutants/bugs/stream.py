"""Bugs of streams and of what lies between the stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tumorseg_benchmarks.mutants.mutant import Apply, Mutant, patched
from tumorseg_runtime.inference.segmenter import Segmenter

_stream, _predict = Segmenter.stream, Segmenter.predict  # before anything is broken


def streamed(change: Callable[[list[Any]], list[Any]]) -> Apply:
    """Other results of a stream: change(results)."""

    def stream(self: Segmenter, images: Any, **options: Any) -> Any:
        yield from change(list(_stream(self, images, **options)))

    return patched(("tumorseg_runtime.inference.segmenter.Segmenter.stream", stream))


def with_predictions(results: list[Any], order: Callable[[list[Any]], list[Any]]) -> list[Any]:
    """The results with their predictions in another order."""
    predictions = order([result.prediction for result in results])
    return [
        dataclasses.replace(result, prediction=prediction)
        for result, prediction in zip(results, predictions, strict=True)
    ]


def masks_of_neighbour(results: list[Any]) -> list[Any]:
    """Each image with the mask and the lesions of the one before it, where their sizes agree."""
    found = [result.prediction for result in results]
    changed = []
    for now, before in zip(found, [found[0], *found[:-1]], strict=True):
        same = now.masks.shape == before.masks.shape
        changed.append(dataclasses.replace(now, masks=before.masks, lesions=before.lesions) if same else now)
    return [dataclasses.replace(r, prediction=p) for r, p in zip(results, changed, strict=True)]


def in_batches_of(size: int, change: Callable[[list[Any]], list[Any]]) -> Apply:
    """Other results of a stream whose batches have this size."""

    def stream(self: Segmenter, images: Any, *, batch_size: int = 1, **options: Any) -> Any:
        found = list(_stream(self, images, batch_size=batch_size, **options))
        yield from change(found) if batch_size == size else found

    return patched(("tumorseg_runtime.inference.segmenter.Segmenter.stream", stream))


def _unlimited(self: Segmenter, images: Any, *, timeout_s: float | None = None, **options: Any) -> Any:
    """Where nothing is timed, the first prediction for all."""
    found = list(_stream(self, images, timeout_s=timeout_s, **options))
    one_by_one = timeout_s is None and options.get("batch_size", 1) == 1
    yield from with_predictions(found, lambda all_: [all_[0]] * len(all_)) if one_by_one else found


unlimited = patched(("tumorseg_runtime.inference.segmenter.Segmenter.stream", _unlimited))


def listed(change: Callable[[list[Any]], list[Any]]) -> Apply:
    """Other results of a list: change(predictions)."""

    def predict(self: Segmenter, images: Any, **options: Any) -> Any:
        found = _predict(self, images, **options)
        return change(found) if isinstance(found, list) else found

    return patched(("tumorseg_runtime.inference.segmenter.Segmenter.predict", predict))


MUTANTS = tuple(
    Mutant(name, "stream", apply)
    for name, apply in (
        ("stream in reverse order", streamed(lambda results: results[::-1])),
        (
            "predictions of a stream shifted by one",
            streamed(lambda results: with_predictions(results, lambda found: [found[-1], *found[:-1]])),
        ),
        ("last image of a stream lost", streamed(lambda results: results[:-1])),
        ("first image of a stream twice", streamed(lambda results: [results[0], *results])),
        ("masks of a stream of the image before", streamed(masks_of_neighbour)),
        ("masks of the image before in a stream in twos", in_batches_of(2, masks_of_neighbour)),
        ("last image of a stream in threes lost", in_batches_of(3, lambda results: results[:-1])),
        ("first prediction for all of a stream without a limit", unlimited),
        ("list in reverse order", listed(lambda found: found[::-1])),
        ("last image of a list lost", listed(lambda found: found[:-1])),
        ("first prediction for all of a list", listed(lambda found: [found[0]] * len(found))),
    )
)
