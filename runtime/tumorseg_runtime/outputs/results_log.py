"""`predictions.jsonl`: what `tumorseg predict` has done so far, one line of JSON per image, volume or failed
file.

The first line holds the settings: bundle, session, decision rule, kinds of output. Lines are appended after
an image's outputs are written, so that a line stands for complete outputs; a run that was killed leaves at
most a half last line. Nothing but the names of files is held in memory, however many images there are.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.files import Log, make_folder, write_text
from tumorseg_runtime.core.records import Fields, Format

FILE, SUMMARY = "predictions.jsonl", "predictions.json"
_FORMAT = Format(
    "log of predictions", "leave out --resume to begin again", error=InputError, max_bytes=16 * 2**20
)
_NONE: Mapping[str, list[int]] = MappingProxyType({})
_SETTINGS = Fields(settings=dict[str, Any])
_FAILED = Fields(file=str, error=str)
_IMAGE = Fields(file=str, output=str, frame=int, frames=int, masks=dict[str, str], pictures=[str], stamp=Any)


class ResultsLog:
    """An open `predictions.jsonl`; a context manager.

    done: files whose outputs are complete: nothing is to be done for them.
    """

    def __init__(
        self,
        out: Path,
        settings: dict[str, Any],
        names: dict[str, str],
        *,
        resume: bool,
        stamps: Mapping[str, list[int]] = _NONE,
    ) -> None:
        """names: path -> name of its outputs, for all files of this run. stamps: of objects of a store, whose
        files are not looked at.

        resume: keep the lines of complete files, and of those that are not of this run; raises InputError
        where they were made with other settings.
        """
        self.out, self._stamps = out, stamps
        head = _line({"settings": settings})
        self.settings: dict[str, Any] = _FORMAT.parse(head, "settings")["settings"]  # as read back
        self.done: set[str] = set()
        self.series: list[dict[str, Any]] = []  # the objects of whole series, for the summary
        make_folder(out)
        path = out / FILE
        if resume and path.exists():
            self.done = self._complete(names)
            kept = (
                _line(line)
                for line in self.lines()
                if ("error" not in line and line["file"] in self.done) or self._other(line, names)
            )
            write_text(path, itertools.chain([head], kept))
        else:
            write_text(path, head)
        self._log = Log(path)

    def __enter__(self) -> ResultsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.close()

    def append(self, line: dict[str, Any]) -> None:
        """Add a line and hand it to the operating system; raises InputError where the disk refuses it."""
        self._log.append(_line(line))

    def lines(self) -> Iterator[dict[str, Any]]:
        """The lines after the settings; a half last line, of a run that was killed, is left out."""
        path = self.out / FILE
        for line in itertools.islice(_FORMAT.read_lines(path), 1, None):
            failed = isinstance(line, dict) and "error" in line
            yield _FORMAT.check(line, path, _FAILED if failed else _IMAGE)

    def failed(self) -> Iterator[dict[str, Any]]:
        """The lines of files that could not be segmented."""
        return (line for line in self.lines() if "error" in line)

    def images(self) -> Iterator[dict[str, Any]]:
        """The lines of images that were segmented."""
        return (line for line in self.lines() if "error" not in line and "voxels" not in line)

    def volumes(self) -> Iterator[dict[str, Any]]:
        """The lines of volumes that were segmented."""
        return (line for line in self.lines() if "voxels" in line)

    def write_summary(self) -> None:
        """Write `predictions.json`: the settings, then all `images`, `volumes`, `series` and `failed`."""
        write_text(self.out / SUMMARY, self.summary())

    def summary(self) -> Iterator[str]:
        """The text of `predictions.json`, in pieces."""
        yield json.dumps(self.settings, indent=2).removesuffix("\n}")
        for name, lines in (
            ("images", self.images()), ("volumes", self.volumes()), ("series", self.series),
            ("failed", self.failed()),
        ):  # fmt: skip
            yield f',\n  "{name}": ['
            for index, line in enumerate(lines):
                yield f"{',' if index else ''}\n    {json.dumps(line)}"
            yield "\n  ]"
        yield "\n}\n"

    def _complete(self, names: dict[str, str]) -> set[str]:
        """Files of this run all of whose frames have a line, whose outputs are there under the same names,
        and which have not changed since."""
        path = self.out / FILE
        head = next(_FORMAT.read_lines(path), None)
        before = _FORMAT.check(head, path, _SETTINGS)["settings"]
        differing = sorted(
            name for name in {*before, *self.settings} if before.get(name) != self.settings.get(name)
        )
        if differing:
            raise InputError(
                f"{path}: was made with another {', '.join(differing)}, expected the same to go on from "
                "there: choose another folder, or leave out --resume to begin again"
            )
        frames: Counter[str] = Counter()
        wanted: dict[str, int] = {}
        for line in itertools.chain(self.images(), self.volumes()):
            if self._holds(line, names):
                frames[line["file"]] += 1
                wanted[line["file"]] = line["frames"]
        return {name for name, count in frames.items() if count == wanted[name]}

    def _other(self, line: dict[str, Any], names: dict[str, str]) -> bool:
        """True for a failure of a file that is not of this run, or an image whose outputs are there."""
        if line["file"] in names or "error" in line:
            return line["file"] not in names
        return self._has_outputs(line)

    def _holds(self, line: dict[str, Any], names: dict[str, str]) -> bool:
        """True if a line's outputs are still what this run would write for the file as it is now."""
        if line["file"] not in names or line["output"] != output_name(
            names[line["file"]], line["frame"], line["frames"]
        ):
            return False
        now = self._stamps.get(line["file"]) or stamp(Path(line["file"]))
        return line["stamp"] == now and self._has_outputs(line)

    def _has_outputs(self, line: dict[str, Any]) -> bool:
        outputs = (*line["masks"].values(), *line["pictures"])
        return all(os.path.isfile(self.out / output) for output in outputs)


def earlier_names(out: Path) -> dict[str, str]:
    """Names of outputs by file, as an earlier run into `out` gave them; empty where there was none."""
    path = out / FILE
    names: dict[str, str] = {}
    if path.exists():
        for line in itertools.islice(_FORMAT.read_lines(path), 1, None):
            if isinstance(line, dict) and "error" not in line:
                line = _FORMAT.check(line, path, _IMAGE)
                end = output_name("", line["frame"], line["frames"])
                names[line["file"]] = line["output"].removesuffix(end)
    return names


def output_name(name: str, frame: int, frames: int) -> str:
    """Name of a frame's outputs: the file's, with '[frame]' where it has several."""
    return name if frames == 1 else f"{name}[{frame}]"


def stamp(path: Path) -> list[int] | None:
    """Size in bytes and time of the last change in ns: a file with the same stamp is taken for unchanged."""
    try:
        status = path.stat()
    except OSError:
        return None  # it is gone: it will be reported when it is read
    return [status.st_size, status.st_mtime_ns]


def _line(line: dict[str, Any]) -> str:
    return json.dumps(line) + "\n"  # ASCII: a file's name may not be valid UTF-8
