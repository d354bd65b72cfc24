"""What a path that is not there, or that the system refuses, is told, the same everywhere."""

from __future__ import annotations

import difflib
import errno
import os
from pathlib import Path

from tumorseg_runtime.core.errors import InputError


def require(path: Path, expected: str, remedy: str = "check the path") -> None:
    """Raise InputError where nothing is at `path`; the message names what is there under a like name."""
    if _is_there(path, f"expected {expected}: {remedy}"):
        return
    parent = path.parent
    beside = sorted(one.name for one in parent.iterdir()) if parent.is_dir() else []
    like = difflib.get_close_matches(path.name, beside, n=1)
    meant = f" (there is {parent / like[0]})" if like else ""
    raise InputError(f"{path}: does not exist{meant}, expected {expected}: {remedy}")


def check_writable(path: Path) -> None:
    """Raise InputError where no file or folder can be made at `path`: before the work whose result it is."""
    absolute = Path(os.path.abspath(path))
    if _is_there(path, "expected a place to write to: choose another") and path.is_dir():
        holder = absolute
    else:
        holder = next(one for one in absolute.parents if os.path.lexists(one))
    if not holder.is_dir():
        raise InputError(f"{path}: cannot be written ({holder} is a file): choose another name")
    if not os.access(holder, os.W_OK | os.X_OK):
        raise InputError(f"{path}: cannot be written (no right to write in {holder}): choose another folder")


def _is_there(path: Path, remedy: str) -> bool:
    try:
        path.stat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise InputError(f"{path}: {cannot_be_used(error)}, {remedy}") from error
        return False
    return True


def cannot_be_used(error: OSError) -> str:
    """What is said of a path that the system refuses."""
    return f"cannot be used ({error.strerror or error})"
