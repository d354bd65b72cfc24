"""The files of a bundle, each opened once, and read through what was opened.

`bundle.json` is the index: it lists every other file with its SHA-256 and size. Two files lie beside it
that it cannot list: `bundle.json.sig`, a signature, and `bundle.json.sha256`, the index's own hash, which
finds a flipped bit in an index that nobody signed. Whoever can write into the folder can write that, too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from tumorseg_runtime.core.errors import BundleError
from tumorseg_runtime.core.reading import open_regular, read_regular
from tumorseg_runtime.core.records import Count, Format, Sha256

SCHEMA = 1
INDEX = "bundle.json"
SIGNATURE = "bundle.json.sig"
INDEX_HASH = "bundle.json.sha256"
FORMAT = Format(
    "index of a bundle",
    "copy or export the bundle again",
    SCHEMA,
    renew="export again with this version of tumorseg",
    folder="a bundle made by `tumorseg export`",
    max_bytes=16 * 2**20,
    follow_links=False,
)
BESIDE = {SIGNATURE: 64, INDEX_HASH: 256}  # files that the index does not list, and their most bytes
_PIECE = 2**20


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """Seal of one file: SHA-256 as 64 hexadecimal digits, and its size in bytes."""

    sha256: Sha256
    bytes: Count


def read_index_bytes(root: Path) -> bytes:
    """The bytes of `bundle.json`, held against `bundle.json.sha256` if there is one; raises BundleError."""
    index = FORMAT.read_bytes(root / INDEX)
    found, expected = hashlib.sha256(index).hexdigest(), _index_hash(root)
    if expected not in (None, found):
        raise BundleError(
            f"{root / INDEX}: has SHA-256 {found[:16]}, {INDEX_HASH} says {expected}: "
            "copy or export the bundle again"
        )
    return index


def index_hash_text(index: bytes) -> str:
    """The text of `bundle.json.sha256`, as sha256sum writes and checks it."""
    return f"{hashlib.sha256(index).hexdigest()}  {INDEX}\n"


def read_sealed(root: Path, name: str, seal: FileRecord) -> bytes:
    """The bytes of a file, which are those of its seal; raises BundleError."""
    try:
        data = read_regular(root / name, seal.bytes)
    except OSError as error:
        raise _changed(root, name, error.strerror or str(error)) from error
    if len(data) != seal.bytes or hashlib.sha256(data).hexdigest() != seal.sha256:
        raise _changed(root, name, "its content is another")
    return data


def read_beside(root: Path) -> dict[str, bytes]:
    """The signature and the hash of the index, where they are there: name -> bytes; raises BundleError."""
    found = {}
    for name, limit in BESIDE.items():
        try:
            found[name] = read_regular(root / name, limit)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BundleError(
                f"{root / name}: cannot be used ({error.strerror or error}): copy the bundle again"
            ) from error
    return found


def differences(
    root: Path, files: Mapping[str, FileRecord], hold: Collection[str], held: dict[str, bytes]
) -> list[str]:
    """What in the folder differs from the seals, one line per file.

    hold: names whose bytes are put into `held`, since they are needed next.
    """
    found = set(_names(root))
    problems = [f"{name} is missing" for name in sorted(set(files) - found)]
    problems += [f"{name} does not belong to it" for name in sorted(found - set(files) - {INDEX, *BESIDE})]
    for name in sorted(found & set(files)):
        seal = files[name]
        try:
            problem = _difference(root / name, seal, held.setdefault if name in hold else None, name)
        except OSError as error:
            problem = f"{name} cannot be used ({error.strerror or error})"
        if problem:
            problems.append(problem)
    read_beside(root)
    return problems


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _difference(path: Path, seal: FileRecord, keep: Callable[[str, bytes], object] | None, name: str) -> str:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != seal.bytes:
            return f"{name} has {size} bytes, expected {seal.bytes}"
        digest, pieces, left = hashlib.sha256(), [], seal.bytes
        while left and (piece := file.read(min(left, _PIECE))):
            digest.update(piece)
            left -= len(piece)
            if keep is not None:
                pieces.append(piece)
    if left or digest.hexdigest() != seal.sha256:
        return f"{name} has the right size but other content (SHA-256 differs)"
    if keep is not None:
        keep(name, b"".join(pieces))
    return ""


def _names(root: Path) -> Iterator[str]:
    """Every file, link and other thing below a folder that is no folder itself, by its path inside."""
    folders = [""]
    while folders:
        inside = folders.pop()
        try:
            entries = list(os.scandir(root / inside))
        except OSError as error:
            raise BundleError(
                f"{root / inside}: cannot be listed ({error.strerror or error}), "
                "expected a folder that can be read: check its rights"
            ) from error
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(f"{inside}{entry.name}/")
            else:
                yield f"{inside}{entry.name}"


def _index_hash(root: Path) -> str | None:
    """The hash in `bundle.json.sha256`, None where there is no such file."""
    try:
        text = read_regular(root / INDEX_HASH, BESIDE[INDEX_HASH])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(
            f"{root / INDEX_HASH}: cannot be used ({error.strerror or error}): copy the bundle again"
        ) from error
    return text.decode("ascii", "backslashreplace").partition(" ")[0].strip()[:64]


def _changed(root: Path, name: str, how: str) -> BundleError:
    return BundleError(
        f"{root}: {name} is no longer as it was sealed ({how}): copy or export the bundle again"
    )
