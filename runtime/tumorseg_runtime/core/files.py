"""Files that are written whole or not at all: first under another name in the same folder, then renamed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from tumorseg_runtime.core.errors import InputError


def write_bytes(path: str | Path, data: bytes) -> None:
    """Put `data` at `path`, in place of what was there; raises InputError where that is not possible."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}): check the folder, its rights and the free space"
        ) from error


def write_text(path: str | Path, text: str) -> None:
    """Like `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def make_folder(path: str | Path) -> None:
    """Make a folder and those above it where they are missing; raises InputError."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: the folder cannot be made ({error.strerror}): choose one that you may write to"
        ) from error
