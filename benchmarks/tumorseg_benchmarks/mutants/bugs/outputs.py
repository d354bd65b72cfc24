"""Bugs of what is left of a prediction: files, the JSON line, lists of files, streams of single images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.mutants.bugs.stream import with_predictions
from tumorseg_benchmarks.mutants.mutant import Apply, Device, Mutant, patched
from tumorseg_benchmarks.mutants.testbed import BedNetwork
from tumorseg_runtime.images.read import write_png
from tumorseg_runtime.inference.prediction import Prediction
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.processing.overlay import draw_overlay

Array = npt.NDArray[Any]
PREDICTION = "tumorseg_runtime.inference.prediction"
SEGMENTER = "tumorseg_runtime.inference.segmenter.Segmenter"
LARGE = 1024  # pixels of the longer side

# before anything is broken
_stream, _predict, _decide = Segmenter.stream, Segmenter.predict, Segmenter.decide
_to_dict = Prediction.to_dict


def written(change: Callable[[Array], Array], kind: str = "masks") -> Apply:
    """Other pixels of the files of one kind: change(pixels)."""

    def write(path: Path, pixels: Array, **options: Any) -> None:
        right = kind not in Path(path).parts
        write_png(path, pixels if right else np.ascontiguousarray(change(pixels)), **options)

    return patched((f"{PREDICTION}.write_png", write))


def overlaid(change: Callable[[Array], Array]) -> Apply:
    """Another overlay."""
    return patched(
        (f"{PREDICTION}.draw_overlay", lambda *of: np.ascontiguousarray(change(draw_overlay(*of))))
    )


def told(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Apply:
    """Another line of JSON."""
    return patched((f"{PREDICTION}.Prediction.to_dict", lambda self: change(_to_dict(self))))


def without_contours(line: dict[str, Any]) -> dict[str, Any]:
    """Boxes for contours."""
    return {**line, "lesions": [{**lesion, "contour": ()} for lesion in line["lesions"]]}


def large_mirrored(pixels: Array) -> Array:
    """Right for small images."""
    return pixels[:, ::-1] if max(pixels.shape[:2]) > LARGE else pixels


def one_by_one(change: Callable[[list[Any]], list[Any]]) -> Apply:
    """Other results of a stream in batches of one."""

    def stream(self: Segmenter, images: Any, *, batch_size: int = 1, **options: Any) -> Any:
        results = list(_stream(self, images, batch_size=batch_size, **options))
        yield from change(results) if batch_size == 1 else results

    return patched((f"{SEGMENTER}.stream", stream))


def files_sorted(self: Segmenter, images: Any, **options: Any) -> Any:
    """The files of a list in the order of their names, each in the place of another."""
    if isinstance(images, list):
        places = [place for place, image in enumerate(images) if isinstance(image, Path)]
        files = sorted(images[place] for place in places)[::-1]
        images = list(images)
        for place, file in zip(places, files, strict=True):
            images[place] = file
    return _predict(self, images, **options)


@contextlib.contextmanager
def one_mask_buffer(network: BedNetwork, folder: Path) -> Iterator[Device]:
    """Masks of images of one size lie in one buffer, which the next of them overwrites."""
    buffers: dict[tuple[int, ...], Array] = {}

    def decide(self: Segmenter, frame: Any, answer: Array) -> Prediction:
        found = _decide(self, frame, answer)
        buffer = buffers.setdefault(found.masks.shape, np.empty_like(found.masks))
        buffer[:] = found.masks
        object.__setattr__(found, "masks", buffer)
        return found

    with mock.patch(f"{SEGMENTER}.decide", decide):
        yield Device(network.bundle, file_changed=False)


MUTANTS = tuple(
    Mutant(name, "outputs", apply, late=True)
    for name, apply in (
        ("mask files inverted", written(lambda pixels: 255 - pixels)),
        ("mask files of 1 for 255", written(lambda pixels: pixels // 255)),
        ("mask files mirrored beyond 1024 pixels", written(large_mirrored)),
        ("probability files of 8 bits", written(lambda p: (p >> 8).astype(np.uint8), "probabilities")),
        ("probability files upside down", written(lambda pixels: pixels[::-1], "probabilities")),
        ("overlay in B, G, R", overlaid(lambda picture: picture[..., ::-1])),
        ("overlay without masks", patched((f"{PREDICTION}.draw_overlay", lambda image, masks: draw_overlay(
            image, masks[:0])))),
        ("mask of all classes is the first one", patched(
            (f"{PREDICTION}.Prediction.mask", property(lambda self: self.masks[0])))),
        ("height and width exchanged in the JSON", told(
            lambda line: {**line, "height": line["width"], "width": line["height"]})),
        ("no contours in the JSON", told(without_contours)),
        ("stream of single images: the first for all", one_by_one(
            lambda results: with_predictions(results, lambda found: [found[0]] * len(found)))),
        ("files of a list in reverse order of their names", patched((f"{SEGMENTER}.predict", files_sorted))),
        ("one buffer for the masks of all images of a size", one_mask_buffer),
    )
)  # fmt: skip
