"""What `tumorseg predict` writes for a NIfTI volume: masks of the same grid, lesions in mm³, one line.

The slices come one by one and are written as they come; none but the one that is shown to people is held.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tumorseg_runtime.core.files import make_folder
from tumorseg_runtime.images.nifti.header import Volume, open_volume
from tumorseg_runtime.images.nifti.names import suffix_of
from tumorseg_runtime.images.nifti.write import SliceWriter, writing_volume
from tumorseg_runtime.images.read import write_png
from tumorseg_runtime.inference.prediction import Prediction
from tumorseg_runtime.inference.stream import StreamResult
from tumorseg_runtime.outputs.results_log import stamp
from tumorseg_runtime.processing.lesions_3d import Components
from tumorseg_runtime.processing.overlay import draw_overlay

MOST_LESIONS = 1000  # in a line; the largest ones
_PROBABILITY = 65535  # the stored value of probability 1


class VolumeResults:
    """Gathers the slices of each volume; a context manager, which removes what is not whole at its end."""

    def __init__(self, out: Path, *, overlays: bool, probabilities: bool) -> None:
        self._out, self._overlays, self._probabilities = out, overlays, probabilities
        self._open: _Outputs | None = None
        self._failed = -1  # the last file, by its place, of which a slice had an error

    def __enter__(self) -> VolumeResults:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            self._open.drop(error or InterruptedError())

    def take(self, result: StreamResult, path: Path, name: str) -> dict[str, Any] | None:
        """The line of a volume, with its last slice or its first error; None before and after."""
        if result.index == self._failed:
            return None
        prediction, opened = result.prediction, self._open
        if prediction is None:
            self._failed, self._open = result.index, None
            if opened is not None:
                opened.drop(result.error or InterruptedError())
            return {"image": result.name, "file": str(path), "error": str(result.error)}
        if opened is None:
            classes = prediction.contract.classes
            opened = self._open = _Outputs(
                self._out, open_volume(path), name, classes, self._overlays, self._probabilities
            )
        opened.add(prediction)
        if prediction.frame.index + 1 < prediction.frame.count:
            return None
        self._open = None
        return {**opened.finish(), "image": str(path), "file": str(path), "stamp": stamp(path)}


class _Outputs:
    """The files of one volume on their way."""

    def __init__(
        self, out: Path, volume: Volume, name: str, classes: tuple[str, ...], overlay: bool, maps: bool
    ) -> None:
        self.out, self.volume, self.name, self.classes, self.overlay = out, volume, name, classes, overlay
        self.masks: dict[str, str] = {}
        self.pictures: list[str] = []
        self.components = [Components() for _ in classes]
        self.shown: Prediction | None = None
        self.flagged: int | None = None
        self._stack = contextlib.ExitStack()
        self._writers: list[tuple[SliceWriter, SliceWriter | None]] = []
        suffix = suffix_of(volume.path).lower()
        with contextlib.ExitStack() as stack:
            for label in classes:
                part = "" if len(classes) == 1 else f"/{label}"
                self.masks[label] = f"masks{part}/{name}{suffix}"
                mask, probability = self._writer(stack, self.masks[label], "uint8", 1.0), None
                if maps:
                    self.pictures.append(f"probabilities{part}/{name}{suffix}")
                    probability = self._writer(stack, self.pictures[-1], "uint16", 1 / _PROBABILITY)
                self._writers.append((mask, probability))
            self._stack = stack.pop_all()

    def _writer(self, stack: contextlib.ExitStack, file: str, kind: str, slope: float) -> SliceWriter:
        make_folder((self.out / file).parent)
        return stack.enter_context(writing_volume(self.out / file, self.volume, kind, slope))

    def add(self, prediction: Prediction) -> None:
        """Write a slice."""
        with contextlib.ExitStack() as failing:
            failing.push(self._stack)  # what goes wrong leaves no file
            maps = prediction.probabilities() if self._writers[0][1] is not None else None
            for index, (mask, (writer, probability)) in enumerate(
                zip(prediction.masks, self._writers, strict=True)
            ):
                writer.add(mask)
                self.components[index].add(self.volume.stored(mask))
                if probability is not None and maps is not None:
                    probability.add(np.rint(maps[index] * np.float32(_PROBABILITY)))
            failing.pop_all()
        if (check := prediction.input_check) is not None:
            self.flagged = (self.flagged or 0) + check.flagged
        if self.overlay and (self.shown is None or _rank(prediction) > _rank(self.shown)):
            self.shown = prediction

    def finish(self) -> dict[str, Any]:
        """Close the files, which are whole then; what a line says of them."""
        with contextlib.ExitStack() as failing:
            failing.push(self._stack)
            if self.shown is not None:
                picture = f"overlays/{self.name}.png"
                make_folder((self.out / picture).parent)
                write_png(self.out / picture, draw_overlay(self.shown.image, self.shown.masks))
                self.pictures.append(picture)
        lesions = [
            lesion
            for label, components in zip(self.classes, self.components, strict=True)
            for lesion in components.lesions(label, self.volume.affine)
        ]
        largest = sorted(lesions, key=lambda lesion: -lesion.voxels)[:MOST_LESIONS]
        line: dict[str, Any] = {
            "voxels": list(self.volume.shape[:3]),
            "voxel_mm3": self.volume.voxel_mm3,
            "spacing": self.volume.spacing.source,
            "slices_flagged": self.flagged,
            "lesion_count": len(lesions),
            "lesions": [lesion.to_dict() for lesion in largest],
            "masks": self.masks,
            "pictures": self.pictures,
            "frame": 0,
            "frames": 1,
            "output": self.name,
        }
        if self.shown is not None:
            line |= {"overlay": self.pictures[-1], "overlay_slice": self.shown.frame.index}
        return line

    def drop(self, error: BaseException) -> None:
        """Remove what was begun."""
        with contextlib.suppress(type(error)), self._stack:
            raise error


def _rank(prediction: Prediction) -> tuple[int, int]:
    """What makes a slice worth showing: the tumour in it, then how near the middle it is."""
    frame = prediction.frame
    return int(prediction.mask.sum()), -abs(frame.index - frame.count // 2)
