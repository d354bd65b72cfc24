"""What a worker of many does: a handful of files in, their outputs written, the lines of the log back.

Free of Ray, which is one way to start workers (`outputs.on_ray`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tumorseg_runtime
from tumorseg_runtime.bundle.archive import pack, unpack
from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.core.files import make_folder, write_bytes, write_text
from tumorseg_runtime.core.session import SessionInfo
from tumorseg_runtime.core.text import printable
from tumorseg_runtime.images import decoder_lines
from tumorseg_runtime.images.dicom.lookup_tables import Span
from tumorseg_runtime.images.dicom.segmentation import Maker
from tumorseg_runtime.images.frame import WindowedFile
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.outputs.image_results import Outputs, SegmentationResults
from tumorseg_runtime.outputs.object_store import StoredFile, fetch
from tumorseg_runtime.outputs.writer import Written, write_results

TRIES = 3  # of a row that ended its worker
_OF_A_FRAME = re.compile(r".*\[\d+\]", re.DOTALL)
File = Path | WindowedFile | StoredFile


@dataclasses.dataclass(frozen=True)
class Job:
    """What every worker is told.

    archive: the bundle as one file (`bundle.archive`). out, token: a folder that all machines share, and the
    file in it by which a worker knows that it is the same. info: the session that each must have, versions
    included. opening: arguments of `Segmenter.open`. taken: names that a frame's outputs must not have.
    """

    archive: bytes
    out: Path
    token: str
    info: SessionInfo
    opening: dict[str, Any]
    overlays: bool
    probabilities: bool
    dicom_seg: bool
    batch: int
    timeout: float | None
    taken: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Task:
    """One file: its place among those of the run, its name as the user gave it, and that of its outputs."""

    index: int
    file: File
    shown: str
    name: str


class Worker:
    """What an actor holds: one Segmenter, which has tested itself on its machine."""

    def __init__(self, job: Job) -> None:
        if not (job.out / job.token).is_file():
            raise BackendError(
                f"{job.out}: is not the folder of the run on this worker's machine, expected one that all "
                "machines share under the same path: mount it there"
            )
        self.job = job
        self._folder = tempfile.TemporaryDirectory(prefix="tumorseg-worker-", ignore_cleanup_errors=True)
        archive, root = Path(self._folder.name, "bundle.zip"), Path(self._folder.name, "bundle")
        write_bytes(archive, job.archive, durable=False)
        bundle = unpack(archive, root)
        archive.unlink()
        self._segmenter = Segmenter.open(bundle, self_test=True, **job.opening)
        if self._segmenter.info != job.info:
            self.close()
            raise BackendError(
                f"a worker's session is {_told(self._segmenter.info)}, expected {_told(job.info)} as where "
                "the run was started, or masks may differ by machine: install the same versions"
            )
        objects = (
            SegmentationResults(Maker.of(bundle, tumorseg_runtime.__version__)) if job.dicom_seg else None
        )
        self._outputs = Outputs(job.out, job.overlays, job.probabilities, objects)

    def close(self) -> None:
        """Give back the session, and the copy of the bundle."""
        self._segmenter.close()
        self._folder.cleanup()

    def row(self, number: int, tasks: Sequence[Task]) -> list[Written]:
        """The results of a row, unless it ended its worker again and again: an image that ends a process must
        not end every one. How often it was begun is noted beside the token."""
        note = self.job.out / f"{self.job.token}.{number}"
        begun = len(note.read_bytes()) if note.exists() else 0
        if begun >= TRIES:
            said = f"its worker died {begun} times in a row with it in hand, expected none: segment it alone"
            return [_failed(task, f"{task.shown}: {said}") for task in tasks]
        write_text(note, "x" * (begun + 1), durable=False)
        written = self(tasks)
        note.unlink(missing_ok=True)
        return written

    def __call__(self, tasks: Sequence[Task]) -> list[Written]:
        """Segment the files of a row and write their outputs."""
        done: list[Written] = []
        begun: list[_Begun] = []
        paths: list[Path] = []
        names: list[str] = []
        with tempfile.TemporaryDirectory(prefix="tumorseg-row-") as folder:

            def source() -> Iterator[Path | WindowedFile]:
                for task in tasks:  # on the stream's first thread: fetched while others are inferred
                    read, stamp = task.file, None
                    if isinstance(read, StoredFile):
                        try:
                            own = Path(folder, str(task.index))
                            make_folder(own)
                            read, stamp = fetch(read, own)
                        except InputError as error:
                            done.append(_failed(task, str(error)))
                            continue
                    begun.append(_Begun(task, Path(read), stamp))
                    paths.append(Path(read))
                    names.append(task.name)
                    yield read

            results = self._segmenter.stream(source(), batch_size=self.job.batch, timeout_s=self.job.timeout)
            with decoder_lines.owned(), contextlib.closing(results):
                for one in write_results(results, paths, names, self._outputs, self.job.taken):
                    done.append(begun[one.index].as_given(one))
        return sorted(done, key=lambda one: one.index)  # stable: frames stay in order


@dataclasses.dataclass(frozen=True)
class _Begun:
    """A file that is read at `path`. stamp: of an object of a store."""

    task: Task
    path: Path
    stamp: list[int] | None

    def as_given(self, one: Written) -> Written:
        """The same with the file named as it was given."""
        index = self.task.index
        if str(self.path) == self.task.shown:
            return dataclasses.replace(one, index=index)
        line = {key: self._named(value) for key, value in one.line.items()}
        if self.stamp is not None and "stamp" in line:
            line["stamp"] = self.stamp
        warnings = tuple(self._named(warning) for warning in one.warnings)
        return Written(index, line, self._named(one.said), warnings, self._named(one.fault))

    def _named(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        shown, path = self.task.shown, str(self.path)
        return value.replace(path, shown).replace(printable(path), printable(shown))


def _failed(task: Task, error: str) -> Written:
    return Written(task.index, {"image": task.shown, "file": task.shown, "error": error}, "", ())


def _told(info: SessionInfo) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in info.versions.items())
    return f"{info.backend} {info.device} {info.precision} ({versions})"


def job_of(
    bundle: Path, segmenter: Segmenter, outputs: Outputs, opening: dict[str, Any], names: Sequence[str], *,
    batch: int, timeout: float | None,
) -> Job:  # fmt: skip
    """The job of a run; segmenter: of the machine that starts it."""
    with tempfile.TemporaryDirectory(prefix="tumorseg-job-") as folder:
        archive = Path(folder, "bundle.zip")
        pack(bundle, archive)
        return Job(
            archive.read_bytes(), outputs.out.absolute(), f".ray-{uuid.uuid4().hex}", segmenter.info, opening,
            outputs.overlays, outputs.probabilities, outputs.objects is not None, batch, timeout,
            frozenset(name.casefold() for name in names if _OF_A_FRAME.fullmatch(name)),
        )  # fmt: skip


def tasks_of(
    todo: Sequence[Path | StoredFile], spans: Mapping[Path, Span], names: Sequence[str]
) -> list[Task]:
    """What workers get: paths that hold from any folder that they run in. spans: of files with a window."""

    def reached(file: Path | StoredFile) -> File:
        if isinstance(file, StoredFile):
            return file
        whole = file.absolute()
        return WindowedFile(whole, spans[file]) if file in spans else whole

    return [
        Task(index, reached(file), str(file), name)
        for index, (file, name) in enumerate(zip(todo, names, strict=True))
    ]
