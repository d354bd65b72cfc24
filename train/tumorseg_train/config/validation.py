"""What pydantic finds wrong with values that people wrote, as one line of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ConfigDict, ValidationError

from tumorseg_runtime.core.errors import InputError

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
T = TypeVar("T")


def validated(kind: type[T], values: Mapping[str, Any], source: object) -> T:
    """`kind(**values)`, a pydantic dataclass; raises InputError that names `source` and every fault."""
    try:
        return kind(**values)
    except ValidationError as error:
        raise InputError(f"{source}: {'; '.join(map(_fault, error.errors()))}: correct it") from error


def _fault(fault: Mapping[str, Any]) -> str:
    name = ".".join(map(str, fault["loc"]))
    if fault["type"] == "missing":
        return f"lacks the field {name}"
    if fault["type"] == "unexpected_keyword_argument":
        return f"has the unknown field {name}"
    return f"{name} is {fault['input']!r}, expected {fault['msg'].removeprefix('Input should be ')}"
