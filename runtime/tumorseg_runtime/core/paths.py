"""What a path that is not there, or that the system refuses, is told, the same everywhere."""

from __future__ import annotations

import difflib
import errno
from pathlib import Path

from tumorseg_runtime.core.errors import InputError


def require(path: Path, expected: str, remedy: str = "check the path") -> None:
    """Raise InputError where nothing is at `path`; the message names what is there under a like name."""
    try:
        path.stat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise InputError(f"{path}: {cannot_be_used(error)}, expected {expected}: {remedy}") from error
    else:
        return
    parent = path.parent
    beside = sorted(one.name for one in parent.iterdir()) if parent.is_dir() else []
    like = difflib.get_close_matches(path.name, beside, n=1)
    meant = f" (there is {parent / like[0]})" if like else ""
    raise InputError(f"{path}: does not exist{meant}, expected {expected}: {remedy}")


def cannot_be_used(error: OSError) -> str:
    """What is said of a path that the system refuses."""
    return f"cannot be used ({error.strerror or error})"
