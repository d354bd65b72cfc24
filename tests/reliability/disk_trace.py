"""A disk of which only what was synced is certain: made of what strace saw a process write.

The model is that of a strict file system: a file's bytes are certain up to its last fsync, a folder's names
up to its own. What came later may be there wholly, in part or not at all, each file and folder by itself,
names in the order in which they were given.
"""

from __future__ import annotations

import dataclasses
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from reliability.row import NotPossibleError

CALLS = (
    "openat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,"
    "ftruncate,lseek,link,linkat,symlink,symlinkat,sendfile,copy_file_range,writev,pwritev"
)
_LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) = (-?\d+)")
_PLACE = re.compile(r'(?:AT_FDCWD|\d+)<((?:\\x..)*)>(?:\(deleted\))?, "((?:\\x..)*)"')
_HANDLE = re.compile(r"(\d+)<((?:\\x..)*)>")


@dataclasses.dataclass(frozen=True)
class Step:
    """One call that changes or syncs. kind: 'make', 'folder', 'write', 'cut', 'sync', 'name', 'drop'."""

    kind: str
    path: str
    to: str = ""
    at: int = 0
    data: bytes = b""


@dataclasses.dataclass
class Inode:
    """A file's bytes, or a folder's names; `safe` is what a sync has made certain, `log` what came after."""

    folder: bool
    data: bytearray = dataclasses.field(default_factory=bytearray)
    names: dict[str, int] = dataclasses.field(default_factory=dict)
    safe: bytes = b""
    safe_names: dict[str, int] = dataclasses.field(default_factory=dict)
    log: list[tuple[str, int | None]] = dataclasses.field(default_factory=list)


def record(code: str, arguments: list[str], root: Path, log: Path) -> list[Step]:
    """Run Python code under strace; what it did below `root`. Raises NotPossibleError without strace."""
    if shutil.which("strace") is None:
        raise NotPossibleError("strace is not installed")
    strace = ["strace", "-f", "-qq", "-y", "-xx", "-s", str(2**26), "-e", f"trace={CALLS}", "-o", str(log)]
    command = [*strace, sys.executable, "-B", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode and "ptrace" in done.stderr:
        raise NotPossibleError("this machine does not let strace trace")
    if done.returncode:
        raise AssertionError(done.stderr[-500:])
    return list(_steps(log.read_text(), str(root)))


def _text(hexed: str) -> str:
    return bytes.fromhex(hexed.replace("\\x", "")).decode()


def _steps(trace: str, root: str) -> Iterator[Step]:
    offsets: dict[str, int] = {}  # of the descriptor that a path is written through: one at a time here
    for line in trace.splitlines():
        match = _LINE.match(line)
        if match is None or int(match[3]) < 0:
            continue
        call, words, result = match[1], match[2], int(match[3])
        if _hexed(root) not in words:
            continue
        yield from _step(call, words, result, root, offsets)


def _hexed(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def _inside(path: str, root: str) -> bool:
    return path.startswith(root + "/")


def _step(call: str, words: str, result: int, root: str, offsets: dict[str, int]) -> Iterator[Step]:
    if call in ("write", "lseek", "fsync", "fdatasync", "ftruncate"):
        found = _HANDLE.match(words)
        path = _text(found[2]) if found else ""
        if not _inside(path, root) and path != root:
            return
        if call == "write":
            (text,) = re.findall(r'"((?:\\x..)*)"', words)
            data = bytes.fromhex(text.replace("\\x", ""))[:result]
            yield Step("write", path, at=offsets.get(path, 0), data=data)
            offsets[path] = offsets.get(path, 0) + result
        elif call == "lseek":
            offsets[path] = result
        elif call == "ftruncate":
            yield Step("cut", path, at=int(words.rpartition(",")[2]))
        else:
            yield Step("sync", path)
        return
    places = [os.path.normpath(os.path.join(_text(a), _text(b))) for a, b in _PLACE.findall(words)]
    if not places:
        whole = re.findall(r'"((?:\\x..)*)"', words)
        places = [_text(one) for one in whole]
    if not any(_inside(place, root) for place in places):
        return
    path = places[0]
    if call == "openat":
        if "O_APPEND" not in words:
            offsets[path] = 0
        if "O_CREAT" in words:
            yield Step("make", path)
        if "O_TRUNC" in words:
            yield Step("cut", path)
    elif call in ("mkdir", "mkdirat"):
        yield Step("folder", path)
    elif call.startswith("rename"):
        offsets[places[1]] = offsets.pop(path, 0)
        yield Step("name", path, to=places[1])
    elif call in ("unlink", "unlinkat", "rmdir"):
        yield Step("drop", path)
    else:
        raise AssertionError(f"{call} is not in the model: {words[:200]}")


class Disk:
    """The disk while steps are taken; begins with the certain content of a folder."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.inodes: list[Inode] = [Inode(True)]
        for path in sorted(root.rglob("*")):
            number = self._add(str(path), path.is_dir())
            if path.is_file():
                self.inodes[number].data += path.read_bytes()
        for one in self.inodes:
            one.safe, one.safe_names, one.log = bytes(one.data), dict(one.names), []

    def take(self, step: Step) -> None:
        """Carry out one step."""
        if step.kind == "folder":
            self._add(step.path, True)
        elif step.kind == "make":
            if self._find(step.path) is None:
                self._add(step.path, False)
        elif step.kind == "name":
            holder, name = self._holder(step.path)
            number = holder.names[name]
            self._set(step.to, number)
            self._set(step.path, None)
        elif step.kind == "drop":
            self._set(step.path, None)
        elif (number := self._find(step.path)) is not None:
            one = self.inodes[number]
            if step.kind == "sync":
                one.safe, one.safe_names, one.log = bytes(one.data), dict(one.names), []
            elif step.kind == "cut":
                del one.data[step.at :]
            else:
                one.data[len(one.data) : step.at] = bytes(max(0, step.at - len(one.data)))
                one.data[step.at : step.at + len(step.data)] = step.data

    def after_power_cut(self, to: Path, draw: random.Random, how: str) -> None:
        """Write what a power cut leaves. how: 'all' of what was asked for, only what is 'certain', or 'some'
        of what is not."""
        self._write(0, to, draw, how)

    def _write(self, number: int, to: Path, draw: random.Random, how: str) -> None:
        one = self.inodes[number]
        if not one.folder:
            data = bytes(one.data)
            if how == "certain" or (how == "some" and data != one.safe):
                cut = draw.randrange(len(data) + 1)
                torn = data[:cut] + bytes(len(data) - cut)  # the length is there, not yet the bytes
                data = one.safe if how == "certain" else draw.choice((one.safe, data, data[:cut], torn))
            to.write_bytes(data)
            return
        to.mkdir()
        names = dict(one.safe_names)
        taken = {"all": len(one.log), "certain": 0, "some": draw.randrange(len(one.log) + 1)}[how]
        for name, inner in one.log[:taken]:
            names.pop(name, None)
            if inner is not None:
                names[name] = inner
        for name, inner in names.items():
            self._write(inner, to / name, draw, how)

    def _find(self, path: str) -> int | None:
        number = 0
        for name in Path(path).relative_to(self.root).parts:
            found = self.inodes[number].names.get(name)
            if found is None:
                return None
            number = found
        return number

    def _holder(self, path: str) -> tuple[Inode, str]:
        number = self._find(os.path.dirname(path))
        assert number is not None, path
        return self.inodes[number], os.path.basename(path)

    def _set(self, path: str, number: int | None) -> None:
        holder, name = self._holder(path)
        holder.names.pop(name, None)
        if number is not None:
            holder.names[name] = number
        holder.log.append((name, number))

    def _add(self, path: str, folder: bool) -> int:
        self.inodes.append(Inode(folder))
        self._set(path, len(self.inodes) - 1)
        return len(self.inodes) - 1
