"""What `tumorseg predict` writes for images: masks, pictures, a line, and DICOM SEG objects.

An object of a file is written with its last frame, those of whole series at the end, from the masks that
were written, so that a run that was resumed has them all.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.dicom.segmentation import Maker, SegmentationBuilder, write_segmentation
from tumorseg_runtime.images.dicom.segmentation_series import (
    SeriesGroup,
    SeriesImage,
    group_by_series,
    series_of,
    series_segmentation,
)
from tumorseg_runtime.images.frames import is_dicom
from tumorseg_runtime.images.read import read_image
from tumorseg_runtime.inference.stream import StreamResult
from tumorseg_runtime.outputs.results_log import ResultsLog, output_name, stamp

SERIES_FOLDER = "series"  # of their objects


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


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Where and what to write. overlays, probabilities: whether those pictures are wanted. objects: the DICOM
    SEG objects; None where none are wanted."""

    out: Path
    overlays: bool
    probabilities: bool
    objects: SegmentationResults | None = None


def make_line(
    result: StreamResult, path: Path, name: str, outputs: Outputs, taken: Collection[str]
) -> dict[str, Any]:
    """Write the outputs of one result; its line for the ledger."""
    segmentation = None
    if outputs.objects is not None:
        try:
            segmentation = outputs.objects.add(result, path)
        except InputError as error:
            return {"image": str(path), "file": str(path), "error": str(error)}
    if result.prediction is None:
        return {"image": result.name, "file": str(path), "error": str(result.error)}
    frame = result.prediction.frame
    output = output_name(name, frame.index, frame.count)
    if frame.count > 1 and output.casefold() in taken:
        clash = f"{result.name}: its outputs would be named {output}, like another file's: run it apart"
        return {"image": result.name, "file": str(path), "error": clash}
    written = result.prediction.write(
        outputs.out, output, overlay=outputs.overlays, probabilities=outputs.probabilities
    )
    if segmentation is not None:
        written["dicom_seg"] = f"masks/{name}.seg.dcm"
        written["pictures"].append(written["dicom_seg"])  # --resume looks for these
        write_segmentation(outputs.out / written["dicom_seg"], segmentation)
    return {
        **result.prediction.to_dict(),
        **written,
        "file": str(path),
        "stamp": stamp(path),
        "frame": frame.index,
        "frames": frame.count,
        "output": output,
    }


class SeriesResults:
    """The objects of the series to which this run's DICOM files belong, made of the masks that lie in OUT."""

    def __init__(self, paths: Sequence[Path], maker: Maker, log: Callable[[str], None]) -> None:
        """Raises InputError where no file is DICOM."""
        self._paths, self._maker = [path for path in paths if is_dicom(path)], maker
        if not self._paths:
            raise InputError(
                f"{paths[0]}: is no DICOM image, --series-seg expects one or more: leave --series-seg out"
            )
        if others := len(paths) - len(self._paths):
            log(f"{others} of {len(paths)} files are no DICOM images: of no series, masks only")

    def write(self, results_log: ResultsLog) -> None:
        """Write them, and a line of failure for each file and series of which there can be none.

        A series of which a file failed has none, and neither has one beside a file that failed and does not
        say its series: an object with a hole would look whole.
        """
        masks: dict[str, dict[int, dict[str, str]]] = defaultdict(dict)
        for line in results_log.images():
            masks[line["file"]][line["frame"]] = line["masks"]
        failed = {line["file"] for line in results_log.failed()}
        images: list[SeriesImage] = []
        without: dict[str, Path] = {}  # a series, or a folder -> the file that is to blame
        for path in self._paths:
            if str(path) not in failed:
                try:
                    images.append(SeriesImage.of(path, len(masks[str(path)])))
                    continue
                except InputError as error:
                    results_log.append({"image": str(path), "file": str(path), "error": str(error)})
            without.setdefault(series_of(path) or str(path.parent), path)

        def read_masks(path: Path, frame: int) -> npt.NDArray[np.bool_]:
            files = masks[str(path)][frame]
            return np.stack([read_image(results_log.out / files[name]) > 0 for name in self._maker.classes])

        for group in group_by_series(images):
            target = results_log.out / SERIES_FOLDER / f"{group.name}.seg.dcm"
            try:
                _check_whole(group, without)
                write_segmentation(target, series_segmentation(group, self._maker, read_masks))
            except InputError as error:
                with contextlib.suppress(FileNotFoundError):
                    target.unlink()  # of an earlier run
                file = str(group.images[0].path)
                why = f"series {group.name} has no DICOM SEG: {error}"
                results_log.append({"image": file, "file": file, "error": why, "series": group.name})
                continue
            results_log.series.append(
                {
                    "series_instance": group.images[0].series,
                    "dicom_seg": f"{SERIES_FOLDER}/{target.name}",
                    "files": len(group.images),
                    "frames": group.frames,
                }
            )


def _check_whole(group: SeriesGroup, without: dict[str, Path]) -> None:
    for place in (group.images[0].series, *(str(image.path.parent) for image in group.images)):
        if place in without:
            raise InputError(
                f"{without[place]} could not be used, expected every file of the series: mend it or leave it "
                "out, and go on with --resume"
            )
