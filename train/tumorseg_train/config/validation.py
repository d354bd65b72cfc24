"""What pydantic finds wrong with values that people wrote, as one line of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ConfigDict, ValidationError

from tumorseg_runtime.core.errors import InputError

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
T = TypeVar("T")


def validated(
    kind: type[T], values: Mapping[str, Any], source: object, flags: Mapping[str, str] | None = None
) -> T:
    """`kind(**values)`, a pydantic dataclass; raises InputError that names `source` and every fault.

    flags: by field, of values that stand in the command line and not in `source`.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        faults = error.errors()
        named = {
            str(fault["loc"][0]): (flags or {}).get(str(fault["loc"][0])) for fault in faults if fault["loc"]
        }
        where = "" if named and all(named.values()) else f"{source}: "
        lines = (_fault(fault, named) for fault in faults)
        raise InputError(f"{where}{'; '.join(lines)}: correct it") from error


def _fault(fault: Mapping[str, Any], flags: Mapping[str, str | None]) -> str:
    name = ".".join(map(str, fault["loc"]))
    name = flags.get(name) or name
    if fault["type"] == "missing":
        return f"lacks the field {name}"
    if fault["type"] == "unexpected_keyword_argument":
        return f"has the unknown field {name}"
    return f"{name} is {fault['input']!r}, expected {fault['msg'].removeprefix('Input should be ')}"
