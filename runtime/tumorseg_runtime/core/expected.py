"""A parsed value against what is expected of it, written as a type (`core/records.py` lists the forms)."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Union

from tumorseg_runtime.core.errors import InputError

_SHOWN = 60  # characters of a value in a message
# Metadata of a dataclass's field that files from before it lack: its default then holds.
MAY_LACK: Mapping[str, Any] = {"may_lack": True}


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
# One line of a few words, that no terminal takes for a command.
Line = Annotated[
    str,
    Pattern(
        r"[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]{1,200}",
        "one printable line of at most 200 characters",
    ),
]
# A file inside of a folder that the program knows: no path from the root, none that leads out of the folder.
InnerPath = Annotated[
    str,
    Pattern(r"(?!/)(?!(?s:.*/)?\.\.?(?:/|\Z))[^\\\x00]{1,1000}", "a path inside its folder, without '..'"),
]
Sha256 = Annotated[str, Pattern("[0-9a-f]{64}", "64 hexadecimal digits")]


class Fields(dict[str, Any]):
    """What an object holds at least: name -> what is expected there."""


class Unexpected(ValueError):
    """A value that is not what was expected, in words."""


def convert(value: Any, expected: Any, where: str = "", given: Mapping[str, Any] | None = None) -> Any:
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
        return _limited(convert(value, inner[0], where), inner[1:], where)
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
        found = (convert(one, kind, f"{where}[{index}]") for index, one in enumerate(value))
        return tuple(found) if origin is tuple else list(found)
    if origin is dict:
        items = _object(value, where).items()
        return {
            convert(name, inner[0], f"the name {shown(name)} in {where or 'it'}"): convert(
                one, inner[1], _at(where, name)
            )
            for name, one in items
        }
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
    return convert(value, choice, where)


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
    lacking = {
        field.name
        for field in dataclasses.fields(record)
        if field.metadata == MAY_LACK and field.name not in _object(value, where)
    }
    if unknown := sorted(set(_object(value, where)) - set(names)):
        raise Unexpected(f"has the unknown field {_at(where, unknown[0])}")
    fields = _fields(value, Fields({name: hints[name] for name in names if name not in lacking}), where)
    try:
        return record(**given, **fields)
    except InputError as error:  # of the dataclass itself
        raise Unexpected(f"{where}: {error}" if where else str(error)) from error


_hints = functools.cache(functools.partial(typing.get_type_hints, include_extras=True))


def _fields(value: Any, fields: Fields, where: str) -> dict[str, Any]:
    values = _object(value, where)
    for name in fields:
        if name not in values:
            raise Unexpected(f"lacks the field {_at(where, name)}")
    return {name: convert(values[name], fields[name], _at(where, name)) for name in fields}


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _unexpected(value, where, "an object")
    return value


def _at(where: str, name: str) -> str:
    text = name if name.isprintable() and len(name) <= _SHOWN else shown(name)
    return f"{where}.{text}" if where else text


def _unexpected(value: Any, where: str, expected: str) -> Unexpected:
    return Unexpected(f"{where + ' ' if where else ''}is {shown(value)}, expected {expected}")


def shown(value: Any) -> str:
    """A value in one short printable line."""
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if isinstance(value, str):
        text = repr(value) if value.isprintable() else ascii(value)
    else:
        text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
