"""The bytes of a NIfTI file, unpacked where they are compressed, and what is wrong with them as one line."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.reading import open_regular

_GZIP = b"\x1f\x8b"


@contextlib.contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked where its content is gzip's; what is wrong with it is an InputError."""
    with told(path), open_stream(path) as file:
        yield file


def open_stream(path: Path) -> BinaryIO:
    """As `reading`, for a caller that closes it; raises OSError."""
    raw = io.BufferedReader(cast(io.RawIOBase, open_regular(path, follow=True)))
    if raw.peek(2)[:2] != _GZIP:
        return raw
    unpacked = gzip.GzipFile(fileobj=raw, mode="rb")
    unpacked.myfileobj = raw  # type: ignore[assignment]  # closed with it
    return cast(BinaryIO, unpacked)


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """Whatever is wrong with a file in the block, as an InputError that begins with its path."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path}: is compressed and damaged or cut off ({error}), expected a whole file: copy it again"
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> InputError:
    """The error of a file that the system does not give."""
    return InputError(f"{path}: cannot be read ({error.strerror or error}): check the path and its rights")
