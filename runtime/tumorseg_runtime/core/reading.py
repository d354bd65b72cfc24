"""Opening files that somebody else may have put there: a regular file of bounded size, and nothing else.

A pipe or a device under a file's name would block for ever or never end; a link may lead anywhere, and
elsewhere a moment later. So the file is opened without waiting, looked at through its open descriptor, and
read through the same one: what was looked at is what is read.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


class UnfitFileError(OSError):
    """A name under which there is no regular file of the size that was expected. `strerror` says what is."""

    def __init__(self, reason: str) -> None:
        super().__init__(None, reason)


def open_regular(path: str | Path, *, follow: bool = False) -> BinaryIO:
    """A regular file for reading; raises OSError, UnfitFileError for what is none.

    follow: whether `path` itself may be a link.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    if not follow and os.path.islink(path):
        raise UnfitFileError("it is a link")
    handle = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise UnfitFileError("it is a directory" if stat.S_ISDIR(mode) else "it is no regular file")
    return os.fdopen(handle, "rb", buffering=0)


def state_of(path: str | Path) -> tuple[int, ...]:
    """What differs between two states of a file, to keep what was read of one: device, inode, size, times of
    the last change of its content and of its inode in ns (the latter nobody can set back); raises OSError."""
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read_regular(path: str | Path, limit: int, *, follow: bool = False) -> bytes:
    """All bytes of a regular file of at most `limit`; raises OSError, UnfitFileError where it has more."""
    with open_regular(path, follow=follow) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= limit:
            data = read_up_to(file, limit + 1)
            size = len(data)
    if size > limit:  # of what was there, or of what grew while it was read
        raise UnfitFileError(f"it has more than the {limit} bytes that are allowed")
    return data


def read_up_to(file: BinaryIO, limit: int) -> bytes:
    """The next `limit` bytes, fewer only where the file ends."""
    expected = min(os.fstat(file.fileno()).st_size + 1, limit)
    data = file.read(expected)  # one call of the system for most files
    while len(data) < limit and (piece := file.read(min(limit - len(data), 2**20))):
        data += piece
    return data


@contextlib.contextmanager
def sealed_memory(data: bytes) -> Iterator[str]:
    """Yield a path under which these very bytes can be read, by this process and its children that inherit
    it, and changed by nobody: for a library that takes nothing but a path."""
    with contextlib.ExitStack() as stack:
        handle = memory_file(data)
        stack.callback(os.close, handle)
        yield f"/proc/self/fd/{handle}"


def memory_file(data: bytes) -> int:
    """The descriptor of a file in memory that holds these bytes and cannot be changed any more."""
    handle = os.memfd_create("tumorseg", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        fcntl.fcntl(
            handle,
            fcntl.F_ADD_SEALS,
            fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL,
        )
    except BaseException:
        os.close(handle)
        raise
    return handle
