"""The DICOM SEG objects of `tumorseg predict`: one for each file, written with its last frame."""

from __future__ import annotations

from pathlib import Path

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.dicom.segmentation import Maker, SegmentationBuilder
from tumorseg_runtime.inference.stream import StreamResult


class SegmentationResults:
    """Gathers the masks of each file's frames; a frame that failed leaves its file without an object."""

    def __init__(self, maker: Maker) -> None:
        self._maker = maker
        self._builder: SegmentationBuilder | None = None
        self._refused = -1  # the last file, by its place, that no object can be made of

    def refused(self, result: StreamResult) -> bool:
        """Whether the result's file was refused at an earlier frame: nothing is to be written of it."""
        return result.index == self._refused

    def add(self, result: StreamResult, path: Path) -> bytes | None:
        """The object with its file's last frame, None before; raises InputError for one that is refused."""
        if result.prediction is None:
            self._builder = None
            return None
        frame = result.prediction.frame
        try:
            if frame.index == 0:
                self._builder = SegmentationBuilder(path, frame, self._maker)
            if self._builder is None:
                return None
            self._builder.add(frame, result.prediction.masks)
        except InputError:
            self._refused, self._builder = result.index, None
            raise
        if frame.index + 1 < frame.count:
            return None
        builder, self._builder = self._builder, None
        return builder.encode()
