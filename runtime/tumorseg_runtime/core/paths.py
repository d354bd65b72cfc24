"""What a path that is not there is told, the same everywhere."""

from __future__ import annotations

import difflib
from pathlib import Path

from tumorseg_runtime.core.errors import InputError


def require(path: Path, expected: str, remedy: str = "check the path") -> None:
    """Raise InputError where nothing is at `path`; the message names what is there under a like name."""
    if path.exists():
        return
    parent = path.parent
    beside = sorted(one.name for one in parent.iterdir()) if parent.is_dir() else []
    like = difflib.get_close_matches(path.name, beside, n=1)
    meant = f" (there is {parent / like[0]})" if like else ""
    raise InputError(f"{path}: does not exist{meant}, expected {expected}: {remedy}")
