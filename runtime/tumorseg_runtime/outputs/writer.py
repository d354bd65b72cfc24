"""Results of a stream as files, and what is said of each: the same here and in every worker of many."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.images.dicom.segmentation import write_segmentation
from tumorseg_runtime.images.nifti.names import is_volume
from tumorseg_runtime.inference.stream import StreamResult
from tumorseg_runtime.outputs.descriptions import describe, describe_volume
from tumorseg_runtime.outputs.results_log import output_name, stamp
from tumorseg_runtime.outputs.segmentation_results import SegmentationResults
from tumorseg_runtime.outputs.volume_results import VolumeResults


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Where and what to write. overlays, probabilities: whether those pictures are wanted. objects: the DICOM
    SEG objects; None where none are wanted."""

    out: Path
    overlays: bool
    probabilities: bool
    objects: SegmentationResults | None = None


@dataclasses.dataclass(frozen=True)
class Written:
    """An image or volume whose outputs are complete, or that has failed.

    index: place of its file among those of the run. line: what the log says of it. said: one line for people,
    '' of a failure. warnings: of its file, with the first frame. fault: what the backend said, '' where it
    did not fail.
    """

    index: int
    line: dict[str, Any]
    said: str
    warnings: tuple[str, ...]
    fault: str = ""


def write_results(
    results: Iterable[StreamResult],
    files: Sequence[Path],
    names: Sequence[str],
    outputs: Outputs,
    taken: Collection[str],
) -> Iterator[Written]:
    """Write what comes out of a stream of the files.

    names: of the files' outputs. taken: names of outputs, case folded, that a frame's must not be.
    """
    with VolumeResults(
        outputs.out, overlays=outputs.overlays, probabilities=outputs.probabilities
    ) as volumes:
        for result in results:
            path, name = files[result.index], names[result.index]
            if outputs.objects and outputs.objects.refused(result):
                continue
            whole = is_volume(path) and not outputs.objects
            line = (
                volumes.take(result, path, name) if whole else make_line(result, path, name, outputs, taken)
            )
            if line is None:
                continue
            said, warnings = "", tuple[str, ...]()
            if result.prediction is not None:
                said = describe_volume(line) if whole else describe(result.prediction)
                warnings = result.prediction.frame.warnings if result.prediction.frame.index == 0 else ()
            fault = str(result.error) if isinstance(result.error, BackendError) else ""
            yield Written(result.index, line, said, warnings, fault)


def make_line(
    result: StreamResult, path: Path, name: str, outputs: Outputs, taken: Collection[str]
) -> dict[str, Any]:
    """Write the outputs of one result; its line for the log."""
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
