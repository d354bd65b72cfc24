"""The one module that reads JSON: files that somebody may have damaged, and messages of other processes.

Bounded size and depth, UTF-8, no name twice in one object, no NaN and no infinity; then every value is held
against what is expected of it. A `Format` describes one kind of file, and every fault is its error in one
line: path, got, expected, what to do.

What is expected is written as a type: bool, int, float, str, None, Any, a union, Literal, list[X],
tuple[X, ...], dict[str, X], Annotated[X, Range(...)] or Annotated[X, Pattern(...)], a dataclass (an object of
exactly these fields, but for those marked MAY_LACK), `Fields(name=X, ...)` (an object that has at least
these), [X] (a list), or (X, None) (X or null).
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from tumorseg_runtime.core.errors import BundleError, TumorsegError
from tumorseg_runtime.core.expected import (
    Count,
    Fields,
    InnerPath,
    Line,
    Pattern,
    Range,
    Sha256,
    Unexpected,
    convert,
    shown,
)
from tumorseg_runtime.core.reading import read_regular

__all__ = [
    "Count", "Fields", "Format", "InnerPath", "Line", "Pattern", "Range", "Sha256", "to_json",
]  # fmt: skip
MAX_BYTES = 64 * 2**20
MAX_DEPTH = 64
_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # left out: bytes of a name of a file that is no UTF-8
_SURROGATE = re.compile("[\ud800-\udfff]")
LARGEST_INT = 2**64  # anything beyond is no count, size or seed, and overflows in one library or another
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Format:
    """One kind of file.

    kind: its name for people. schema: the number in its field 'schema', None where it has no such field.
    remedy: what to do where it is damaged; renew: where it is of another schema, None for the same.
    folder: the folder that was expected where the file is missing, and the remedy; None for the plain words.
    """

    kind: str
    remedy: str
    schema: int | None = None
    renew: str | None = None
    folder: str | None = None
    error: type[TumorsegError] = BundleError
    max_bytes: int = MAX_BYTES
    follow_links: bool = True

    def read(self, path: Path, expected: Any = Any) -> Any:
        """The values of a file; raises `error`."""
        return self.parse(self.read_bytes(path), path, expected)

    def read_record(self, path: Path, record: type[_T], **given: Any) -> _T:
        """The file as a dataclass. given: fields that are not in the file."""
        return self.parse_record(self.read_bytes(path), path, record, **given)

    def parse_record(self, data: bytes, source: object, record: type[_T], **given: Any) -> _T:
        """The same for bytes that were read. source: where from, for messages."""
        values = self.parse(data, source)
        if self.schema is not None:
            del values["schema"]
        return self.check(values, source, record, **given)  # type: ignore[no-any-return]

    def read_if_there(self, path: Path, record: type[_T]) -> _T | None:
        """The file as a dataclass, None where there is none."""
        try:
            path.stat()
        except FileNotFoundError:
            return None
        except OSError:
            pass  # the reading says what is wrong
        return self.read_record(path, record)

    def read_lines(self, path: Path) -> Iterator[Any]:
        """The values of each line, of `max_bytes` at most, without a half last one of a killed writer."""
        with path.open("rb") as file:
            while line := file.readline(self.max_bytes):
                if line.endswith(b"\n"):
                    yield self.parse(line, path)
                elif len(line) == self.max_bytes:
                    raise self._damaged(path, f"has a line of more than {self.max_bytes} bytes")

    def parse(self, data: bytes | str, source: object, expected: Any = Any) -> Any:
        """The same for what is no file. source: what it is, for messages."""
        try:
            values = _loads(data)
        except (ValueError, RecursionError) as error:
            raise self._damaged(source, f"cannot be read ({_reason(error)})") from error
        if self.schema is not None:
            self._check_schema(values, source)
        return self.check(values, source, expected)

    def check(self, values: Any, source: object, expected: Any, **given: Any) -> Any:
        """Values that were parsed, as what is expected; raises `error`."""
        try:
            return convert(values, expected, given=given)
        except Unexpected as error:
            raise self._damaged(source, str(error)) from error

    def read_bytes(self, path: Path) -> bytes:
        """The bytes of a file, before anything is made of them; raises `error`."""
        try:
            return read_regular(path, self.max_bytes, follow=self.follow_links)
        except FileNotFoundError:
            if self.folder:
                raise self.error(f"{path.parent}: has no {path.name}, expected {self.folder}") from None
            raise self.error(f"{path}: is missing, expected a {self.kind}: {self.remedy}") from None
        except OSError as error:
            raise self._damaged(path, f"cannot be read ({error.strerror or error})") from error
        except ValueError as error:  # a path that no system knows
            raise self._damaged(path, f"cannot be read ({error})") from error

    def _check_schema(self, values: Any, source: object) -> None:
        if not isinstance(values, dict):
            raise self._damaged(source, f"is {shown(values)}, expected an object")
        got = values.get("schema")
        if type(got) is not int or got != self.schema:
            remedy = self.renew or self.remedy
            raise self.error(f"{source}: schema is {shown(got)}, expected {self.schema}: {remedy}")

    def _damaged(self, source: object, fault: str) -> TumorsegError:
        return self.error(f"{source}: is no {self.kind}: {fault}: {self.remedy}")


def to_json(values: Any, *, indent: int | None = 2) -> str:
    """The text of a JSON file; ValueError for NaN and infinity, which JSON does not have.

    Bytes of a file's name that are no UTF-8 (Python's lone surrogates) stand escaped, as they are read.
    """
    text = json.dumps(values, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    return text if text.isascii() else _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _loads(data: bytes | str) -> Any:
    text = data if isinstance(data, str) else data.decode("utf-8")
    values = json.loads(text, object_pairs_hook=_no_name_twice, parse_constant=_no_constant)
    _check_tree(values, MAX_DEPTH)
    return values


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Unexpected(f"has the name {shown(twice)} twice in one object")
    return values


def _no_constant(name: str) -> None:
    raise Unexpected(f"has the value {name}, expected a finite number")


def _check_tree(value: Any, left: int) -> None:
    """Raise where a value of a file is one that no field can hold: nested too deeply, beyond a float or an
    integer of 64 bits, or text that is no Unicode."""
    if isinstance(value, (dict, list)):
        if not left:
            raise RecursionError
        for inner in (*value, *value.values()) if isinstance(value, dict) else value:
            _check_tree(inner, left - 1)
    elif isinstance(value, str):
        if not value.isascii() and _HALF.search(value):
            raise Unexpected(f"has the text {value[:20]!a} with half a character (a lone surrogate)")
    elif isinstance(value, float) and not math.isfinite(value):  # such as 1e999
        raise Unexpected("has a number beyond what a float can hold")
    elif isinstance(value, int) and abs(value) >= LARGEST_INT:
        raise Unexpected("has an integer beyond 64 bits")


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"nested deeper than {MAX_DEPTH} levels"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    return str(error).splitlines()[0]
