"""The one module that writes files and folders that must be whole, and that locks.

A file is written under another name in the same folder, brought to the disk, renamed, and its new name is
brought to the disk: killed or cut off from power at any point, there is the old file or the new one. What a
dead process had begun is removed by the next that writes into the folder. A folder
appears in the same way (`staged`, `publish`). Inside a folder that is published as a whole, and for scratch,
`durable=False` leaves out the disk: the rename alone keeps a file whole as long as the machine runs.

What the disk refuses is an InputError.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from tumorseg_runtime.core.errors import InputError

_PART = re.compile(r"\..+\.(\d+)-\d+\.part")
_tidied: set[Path] = set()  # folders that this process has looked at
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP)  # of file systems that know no such thing for a folder


@contextlib.contextmanager
def writing(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield the temporary name to write; it becomes `path` if the block ends well, and vanishes if not."""
    path = Path(path)
    part = _part_of(path)
    try:
        _tidy(path.parent)
        part.unlink(missing_ok=True)  # of a dead process of this number, or a link that somebody put there
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(part, flags, 0o666)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)  # as long as its writer lives
            yield part
            if durable:
                _sync(part)
            part.replace(path)
            if durable:
                _sync(path.parent)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
    except OSError as error:
        raise _refused(path, error) from error


def write_bytes(path: str | Path, data: bytes, *, durable: bool = True) -> None:
    """Put `data` at `path`, in place of what was there; raises InputError where that is not possible."""
    with writing(path, durable=durable) as part:
        part.write_bytes(data)


def write_text(path: str | Path, text: str | Iterable[str], *, durable: bool = True) -> None:
    """Like `write_bytes`, in UTF-8; text in pieces is never held in memory as a whole."""
    with writing(path, durable=durable) as part, part.open("w", encoding="utf-8", newline="") as file:
        file.writelines([text] if isinstance(text, str) else text)


@contextlib.contextmanager
def writing_bytes(path: str | Path) -> Iterator[BinaryIO]:
    """Like `write_bytes`, for data made piece by piece: what is written into the file that is yielded."""
    with writing(path) as part, part.open("wb") as file:
        yield file


def write_secret(path: Path, data: bytes) -> None:
    """Put `data` into a new file for its owner alone; raises InputError, also where a file is there."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _sync(path.parent)
    except OSError as error:
        raise _refused(path, error) from error


class Log:
    """A file that whole lines are appended to, for a reader that leaves out a half last one.

    Raises InputError where it cannot be opened, and for lines that the disk refuses, of which nothing stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("ab", buffering=0)  # nothing is left for `close` to fail with
        except OSError as error:
            raise _refused(path, error) from error

    def append(self, lines: str) -> None:
        """Hand lines to the operating system."""
        data, before = lines.encode(), self._file.seek(0, os.SEEK_END)
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(before)
            raise _refused(self._path, error) from error

    def close(self) -> None:
        """Further lines are an error."""
        self._file.close()


def copy(source: Path, path: Path) -> None:
    """Like `write_bytes`, from a file of any size."""
    with writing(path) as part:
        shutil.copyfile(source, part)


def make_folder(path: str | Path, mode: int = 0o777) -> None:
    """Make a folder and those above it where they are missing; raises InputError.

    mode: of the folder itself, before the process's umask.
    """
    try:
        Path(path).mkdir(mode, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: the folder cannot be made ({error.strerror or error}): choose one that you may write to"
        ) from error


def move(path: Path, to: Path) -> None:
    """Give a file or folder another name on the same disk; raises InputError."""
    try:
        path.rename(to)
        _sync(to.parent)
    except OSError as error:
        raise _refused(to, error) from error


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path` that becomes it if the block ends well, and vanishes if not.

    An empty folder at `path` gives way. Raises InputError.
    """
    make_folder(path.parent)
    part = _part_of(path)
    try:
        part.mkdir()
        yield part
        publish(part, path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)  # gone already if all went well


def publish(part: Path, path: Path, *, aside: Path | None = None) -> None:
    """Bring a folder to the disk and rename it to `path`; raises OSError.

    aside: where the folder goes that stands at `path`, to be removed when the other is in its place. Between
    the two renames a kill leaves it there.
    """
    _sync_tree(part)
    if aside is None:
        part.rename(path)
        _sync(path.parent)
        return
    path.rename(aside)
    try:
        part.rename(path)
    except BaseException:
        aside.rename(path)
        raise
    _sync(path.parent)
    remove(aside)


def remove(path: Path) -> None:
    """Remove a folder with all that is in it, or a file or link, which is not followed; raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _tidy(folder: Path) -> None:
    """Remove what processes that are dead had begun to write into a folder, once for each folder."""
    folder = Path(os.path.abspath(folder))
    if folder in _tidied:
        return
    _tidied.add(folder)
    for path in folder.iterdir():
        match = _PART.fullmatch(path.name)
        if match and path.is_file() and not path.is_symlink() and not Path(f"/proc/{match[1]}").exists():
            _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    """Remove a part that nobody writes: a container that shares the folder has numbers of its own."""
    with contextlib.suppress(OSError):  # another process has just removed it, or holds it
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(handle)


@contextlib.contextmanager
def locked(file: Path, what: Path, *, wait: bool = False) -> Iterator[None]:
    """Alone at `what`, among all who lock this file; it goes when the block ends.

    The operating system frees the lock of a process that dies. wait: until it is free; else, and where the
    file cannot be made, InputError.
    """
    try:
        handle = _lock(file, wait)
    except BlockingIOError as error:
        raise InputError(
            f"{what}: {_holder(file)} is changing it, expected to be alone: wait for it, then try again"
        ) from error
    except OSError as error:
        raise _refused(what, error) from error
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is held: who waited for it sees that it is gone
        os.close(handle)


def _lock(file: Path, wait: bool) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        if file.is_symlink():  # whose target is no business of ours
            file.unlink(missing_ok=True)
        handle = os.open(file, flags, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), file.stat()):  # not one that its owner has removed
                    os.write(handle, f"{os.getpid():<20}".encode())  # as long as the last holder's
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _holder(file: Path) -> str:
    try:
        return f"process {int(file.read_bytes()[:20])}"
    except (OSError, ValueError):  # it has just ended, or not yet written its number
        return "another process"


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")


def _sync_tree(root: Path) -> None:
    for path in root.rglob("*"):
        if not path.is_symlink():
            _sync(path)
    _sync(root)


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(handle)


def _refused(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path}: cannot be written ({error.strerror or error}): "
        "check the folder, its rights and the free space"
    )
