"""A reader of files from outside, and what the readers share."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

from fuzz.mutate import (
    changed_bytes,
    changed_json,
)

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/results"
SHIPPED = ROOT / "train/tumorseg_train/demo/bundle"
LONGEST = 5000  # characters of a message
Change = Callable[[bytes, random.Random], bytes]


@dataclasses.dataclass(frozen=True)
class Reader:
    """path: of the file, whose content is good now. change: gives a damaged one. read: what is tried.

    share: of the inputs that others get, for one that builds a network with each.
    """

    name: str
    path: Path
    change: Change
    read: Callable[[], object]
    share: float = 1.0


def unfit_message(text: str) -> str:
    """What is wrong with a message for a terminal, '' for a printable one of bounded length."""
    if text.isprintable() and len(text) <= LONGEST:
        return ""
    return f"message of {len(text)} characters: {text[:300]!r}"


def changed_json_or_bytes(good: bytes, draw: random.Random) -> bytes:
    """A changed JSON text where it is one."""
    return changed_json(good, draw) if good[:1] == b"{" else changed_bytes(good, draw)


def refused(use: Callable[[Path], object], path: Path) -> None:
    """Use a thing that cannot be whole: what is ours is right."""
    from tumorseg_runtime.core.errors import TumorsegError

    try:
        use(path)
    except TumorsegError:
        return
