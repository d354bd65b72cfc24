"""`predictions.jsonl`: what `tumorseg predict` has done so far, one line of JSON per image or failed file.

The first line holds the settings: bundle, session, threshold, kinds of output. Lines are appended after an
image's outputs are written, so that a line stands for complete outputs; a run that was killed leaves at
most a half last line. Nothing but the names of files is held in memory, however many images there are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.files import make_folder

FILE, SUMMARY = "predictions.jsonl", "predictions.json"


class ResultsLog:
    """An open `predictions.jsonl`; a context manager.

    done: files whose outputs are complete: nothing is to be done for them.
    """

    def __init__(self, out: Path, settings: dict[str, Any], names: dict[str, str], *, resume: bool) -> None:
        """names: path -> name of its outputs, for all files of this run.

        resume: keep the lines of complete files; raises InputError where they were made with other settings.
        """
        self.out = out
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))  # as it will be read back
        self.done: set[str] = set()
        make_folder(out)
        path, part = out / FILE, out / f".{FILE}.part"
        try:
            if resume and path.exists():
                self.done = self._complete(names)
                with part.open("w", encoding="utf-8") as new:
                    _write(new, {"settings": settings})
                    for line in self.lines():
                        if line.get("file") in self.done:
                            _write(new, line)
                part.replace(path)
                self._file = path.open("a", encoding="utf-8")
            else:
                self._file = path.open("w", encoding="utf-8")
                self.append({"settings": settings})
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}): check its rights and the free space"
            ) from error

    def __enter__(self) -> ResultsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, line: dict[str, Any]) -> None:
        """Add a line and hand it to the operating system."""
        _write(self._file, line)
        self._file.flush()

    def lines(self) -> Iterator[dict[str, Any]]:
        """The lines after the settings; a half last line, of a run that was killed, is left out."""
        with (self.out / FILE).open(encoding="utf-8") as file:
            next(file)
            for text in file:
                if text.endswith("\n"):
                    yield json.loads(text)

    def failed(self) -> Iterator[dict[str, Any]]:
        """The lines of files that could not be segmented."""
        return (line for line in self.lines() if "error" in line)

    def images(self) -> Iterator[dict[str, Any]]:
        """The lines of images that were segmented."""
        return (line for line in self.lines() if "error" not in line)

    def write_summary(self) -> None:
        """Write `predictions.json`: the settings, then all `images` and `failed`; whole or not at all."""
        part = self.out / f".{SUMMARY}.part"
        try:
            with part.open("w", encoding="utf-8") as file:
                head = json.dumps(self.settings, indent=2)
                file.write(head.removesuffix("\n}"))
                for name, lines in (("images", self.images()), ("failed", self.failed())):
                    file.write(f',\n  "{name}": [')
                    for index, line in enumerate(lines):
                        file.write(f"{',' if index else ''}\n    {json.dumps(line)}")
                    file.write("\n  ]")
                file.write("\n}\n")
            part.replace(self.out / SUMMARY)
        except OSError as error:
            raise InputError(
                f"{self.out / SUMMARY}: cannot be written ({error.strerror}): check the free space"
            ) from error

    def _complete(self, names: dict[str, str]) -> set[str]:
        """Files of this run all of whose frames have a line, whose outputs are there under the same names,
        and which have not changed since."""
        path = self.out / FILE
        try:
            with path.open(encoding="utf-8") as file:
                before = json.loads(file.readline())["settings"]
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
            for line in self.images():
                if self._holds(line, names):
                    frames[line["file"]] += 1
                    wanted[line["file"]] = line["frames"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: is damaged ({error}), expected the lines of an earlier run: "
                "leave out --resume to begin again"
            ) from error
        return {name for name, count in frames.items() if count == wanted[name]}

    def _holds(self, line: dict[str, Any], names: dict[str, str]) -> bool:
        """True if a line's outputs are still what this run would write for the file as it is now."""
        if line["file"] not in names or line["output"] != output_name(
            names[line["file"]], line["frame"], line["frames"]
        ):
            return False
        outputs = [*line["masks"].values(), *line["pictures"]]
        return line["stamp"] == stamp(Path(line["file"])) and all(
            (self.out / output).is_file() for output in outputs
        )


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


def _write(file: TextIO, line: dict[str, Any]) -> None:
    file.write(json.dumps(line) + "\n")  # ASCII: a file's name may not be valid UTF-8
