"""The one module that reads JSON: files that somebody may have damaged, and messages of other processes.

Bounded size and depth, UTF-8, no name twice in one object, no NaN and no infinity; then every value is held
against what is expected of it. A `Format` describes one kind of file, and every fault is its error in one
line: path, got, expected, what to do.

What is expected is written as a type: bool, int, float, str, None, Any, a union, Literal, list[X],
tuple[X, ...], dict[str, X], Annotated[X, Range(...)] or Annotated[X, Pattern(...)], a dataclass (an object of
exactly these fields), `Fields(name=X, ...)` (an object that has at least these), [X] (a list), or (X, None)
(X or null).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from tumorseg_runtime.core.errors import BundleError, InputError, TumorsegError

MAX_BYTES = 64 * 2**20
MAX_DEPTH = 64
_SHOWN = 60  # characters of a value in a message
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`, both included."""

    least: float = -math.inf
    most: float = math.inf


@dataclasses.dataclass(frozen=True)
class Pattern:
    """Text that matches a regular expression as a whole; meaning: the same for people."""

    text: str
    meaning: str


Count = Annotated[int, Range(0)]
Sha256 = Annotated[str, Pattern("[0-9a-f]{64}", "64 hexadecimal digits")]


class Fields(dict[str, Any]):
    """What an object holds at least: name -> what is expected there."""


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

    def read(self, path: Path, expected: Any = Any) -> Any:
        """The values of a file; raises `error`."""
        return self.parse(self._bytes_of(path), path, expected)

    def read_record(self, path: Path, record: type[_T], **given: Any) -> _T:
        """The file as a dataclass. given: fields that are not in the file."""
        values = self.read(path)
        if self.schema is not None:
            del values["schema"]
        return self.check(values, path, record, **given)  # type: ignore[no-any-return]

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
            return _convert(values, expected, "", given)
        except _Unexpected as error:
            raise self._damaged(source, str(error)) from error

    def _bytes_of(self, path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                data = file.read(self.max_bytes + 1)
        except FileNotFoundError:
            if self.folder:
                raise self.error(f"{path.parent}: has no {path.name}, expected {self.folder}") from None
            raise self.error(f"{path}: is missing, expected a {self.kind}: {self.remedy}") from None
        except (OSError, ValueError) as error:  # ValueError: a path that no system knows
            raise self._damaged(path, f"cannot be read ({error})") from error
        if len(data) > self.max_bytes:
            raise self._damaged(path, f"has more than the {self.max_bytes} bytes that are allowed")
        return data

    def _check_schema(self, values: Any, source: object) -> None:
        if not isinstance(values, dict):
            raise self._damaged(source, f"is {_shown(values)}, expected an object")
        got = values.get("schema")
        if type(got) is not int or got != self.schema:
            remedy = self.renew or self.remedy
            raise self.error(f"{source}: schema is {_shown(got)}, expected {self.schema}: {remedy}")

    def _damaged(self, source: object, fault: str) -> TumorsegError:
        return self.error(f"{source}: is no {self.kind}: {fault}: {self.remedy}")


def to_json(values: Any, *, indent: int | None = 2) -> str:
    """The text of a JSON file; ValueError for NaN and infinity, which JSON does not have."""
    return json.dumps(values, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"


class _Unexpected(ValueError):
    """A value that is not what was expected, in words."""


def _loads(data: bytes | str) -> Any:
    text = data if isinstance(data, str) else data.decode("utf-8")
    values = json.loads(text, object_pairs_hook=_no_name_twice, parse_constant=_no_constant)
    _check_depth(values, MAX_DEPTH)
    return values


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Unexpected(f"has the name {_shown(twice)} twice in one object")
    return values


def _no_constant(name: str) -> None:
    raise _Unexpected(f"has the value {name}, expected a finite number")


def _check_depth(value: Any, left: int) -> None:
    if isinstance(value, (dict, list)):
        if not left:
            raise RecursionError
        for inner in value.values() if isinstance(value, dict) else value:
            _check_depth(inner, left - 1)
    elif isinstance(value, float) and not math.isfinite(value):  # such as 1e999
        raise _Unexpected("has a number beyond what a float can hold")


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"nested deeper than {MAX_DEPTH} levels"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    return str(error).splitlines()[0]


def _convert(value: Any, expected: Any, where: str, given: Mapping[str, Any] | None = None) -> Any:
    """`value` as `expected`, which stands at `where`: tuples for lists, dataclasses for objects."""
    if expected is Any:
        return value
    if isinstance(expected, Fields):
        return {**_object(value, where), **_fields(value, expected, where)}
    if dataclasses.is_dataclass(expected):
        return _record(value, expected, where, given or {})
    if isinstance(expected, tuple):
        return _one_of(value, expected, where)
    origin, inner = typing.get_origin(expected), typing.get_args(expected)
    if origin is Annotated:
        return _limited(_convert(value, inner[0], where), inner[1:], where)
    if origin is Literal:
        if value not in inner or type(value) not in map(type, inner):
            raise _unexpected(value, where, " or ".join(map(repr, inner)))
        return value
    if origin in (Union, types.UnionType):
        return _one_of(value, inner, where)
    if isinstance(expected, list) or origin in (list, tuple):
        if not isinstance(value, list):
            raise _unexpected(value, where, "a list")
        kind = expected[0] if isinstance(expected, list) else inner[0]
        found = (_convert(one, kind, f"{where}[{index}]") for index, one in enumerate(value))
        return tuple(found) if origin is tuple else list(found)
    if origin is dict:
        items = _object(value, where).items()
        return {name: _convert(one, inner[1], _at(where, name)) for name, one in items}
    return _scalar(value, expected, where)


_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "text", type(None): "null"}


def _scalar(value: Any, expected: Any, where: str) -> Any:
    if expected is float and type(value) is int:
        return value
    kind = type(None) if expected is None else expected
    if type(value) is not kind:
        raise _unexpected(value, where, _NAMES[kind])
    return value


def _one_of(value: Any, choices: Iterable[Any], where: str) -> Any:
    if value is None:
        return None
    (choice,) = (one for one in choices if one not in (None, type(None)))
    return _convert(value, choice, where)


def _limited(value: Any, limits: Iterable[Any], where: str) -> Any:
    for limit in limits:
        if isinstance(limit, Range) and not limit.least <= value <= limit.most:
            raise _unexpected(value, where, f"a number from {limit.least:g} to {limit.most:g}")
        if isinstance(limit, Pattern) and not re.fullmatch(limit.text, value):
            raise _unexpected(value, where, limit.meaning)
        if isinstance(limit, Fields):
            _fields(value, limit, where)
    return value


def _record(value: Any, record: Any, where: str, given: Mapping[str, Any]) -> Any:
    hints = _hints(record)
    names = [field.name for field in dataclasses.fields(record) if field.name not in given]
    if unknown := sorted(set(_object(value, where)) - set(names)):
        raise _Unexpected(f"has the unknown field {_at(where, unknown[0])}")
    fields = _fields(value, Fields({name: hints[name] for name in names}), where)
    try:
        return record(**given, **fields)
    except InputError as error:  # of the dataclass itself
        raise _Unexpected(f"{where}: {error}" if where else str(error)) from error


_hints = functools.cache(functools.partial(typing.get_type_hints, include_extras=True))


def _fields(value: Any, fields: Fields, where: str) -> dict[str, Any]:
    values = _object(value, where)
    for name in fields:
        if name not in values:
            raise _Unexpected(f"lacks the field {_at(where, name)}")
    return {name: _convert(values[name], fields[name], _at(where, name)) for name in fields}


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _unexpected(value, where, "an object")
    return value


def _at(where: str, name: str) -> str:
    shown = name if name.isprintable() and len(name) <= _SHOWN else _shown(name)
    return f"{where}.{shown}" if where else shown


def _unexpected(value: Any, where: str, expected: str) -> _Unexpected:
    return _Unexpected(f"{where + ' ' if where else ''}is {_shown(value)}, expected {expected}")


def _shown(value: Any) -> str:
    """A value in one short line."""
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
