"""Results of a stream as files, and what is said of each: the same here and in every worker of many."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.images.nifti.names import is_volume
from tumorseg_runtime.inference.stream import StreamResult
from tumorseg_runtime.outputs.descriptions import describe, describe_flag, describe_volume
from tumorseg_runtime.outputs.image_results import Outputs, make_line
from tumorseg_runtime.outputs.volume_results import VolumeResults


@dataclasses.dataclass(frozen=True)
class Written:
    """An image or volume whose outputs are complete, or that has failed.

    index: place of its file among those of the run. line: what the log says of it. said: one line for people,
    '' of a failure. warnings: of its file, with the first frame, and of the input guard.
    fault: what the backend said, '' where it did not fail.
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
            said, warnings = "", list[str]()
            if result.prediction is not None:
                frame = result.prediction.frame
                said = describe_volume(line) if whole else describe(result.prediction)
                warnings += [f"{path}: {one}" for one in frame.warnings if frame.index == 0]
            if flag := describe_flag(line):
                warnings.append(flag)
            fault = str(result.error) if isinstance(result.error, BackendError) else ""
            yield Written(result.index, line, said, tuple(warnings), fault)
