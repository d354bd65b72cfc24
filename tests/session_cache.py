"""Folders that take seconds to make, kept between sessions and shared by the workers of one.

An entry lies in `build/test-cache/NAME/KEY`. The key is a hash of what decides the content: the source of the
four packages as they are imported, the test file that makes the entry, the versions of all installed
packages, the interpreter, the processor and the number of threads. Beside the files lies their list with
SHA-256: an entry that differs from its list is made again. Tests get a copy. `make clean` removes all.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import json
import os
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path

import cv2

from tumorseg_runtime.bundle.bundle import sha256_of
from tumorseg_runtime.core.files import locked, write_text

CACHE = Path(__file__).parents[1] / "build" / "test-cache"
PACKAGES = ("tumorseg_runtime", "tumorseg_train", "tumorseg_export", "tumorseg_benchmarks")
FILES, LIST = "files", "list.json"


def kept(
    name: str, folder: Path, make: Callable[[Path], None], *, about: str = "", cache: Path = CACHE
) -> Path:
    """`folder`, which does not exist yet, with what `make` writes into the empty folder that it is given.

    about: the digest of what else decides the content.
    """
    home = cache / name
    entry = home / _key(inspect.getsourcefile(make) or "", about)
    home.mkdir(parents=True, exist_ok=True)
    with locked(cache / f"{name}.lock", home, wait=True):
        if not _is_whole(entry):
            shutil.rmtree(home)  # with the entries of other states of the source
            (entry / FILES).mkdir(parents=True)
            make(entry / FILES)
            write_text(entry / LIST, json.dumps(_list_of(entry / FILES)))
        shutil.copytree(entry / FILES, folder)
    return folder


def _is_whole(entry: Path) -> bool:
    try:
        return bool(json.loads((entry / LIST).read_text()) == _list_of(entry / FILES))
    except (OSError, ValueError):
        return False


def _list_of(root: Path) -> dict[str, str]:
    """SHA-256 of each file by its path."""
    return {str(path.relative_to(root)): sha256_of(path) for path in root.rglob("*") if path.is_file()}


@functools.cache
def _key(maker: str, about: str) -> str:
    digest = hashlib.sha256()
    for path in [Path(maker), Path(__file__), *(path for name in PACKAGES for path in _source_of(name))]:
        digest.update(f"{path.name} {sha256_of(path)}\n".encode())
    versions = sorted(f"{one.name} {one.version}" for one in distributions())
    threads = os.environ.get("OMP_NUM_THREADS")
    digest.update("\n".join([*versions, sys.version, cv2.getCPUFeaturesLine(), str(threads), about]).encode())
    return digest.hexdigest()[:32]


def _source_of(package: str) -> list[Path]:
    """Every file of a package but what Python compiled; none where it is not installed."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return []
    paths = sorted(Path(found.origin).parent.rglob("*"))
    return [path for path in paths if path.is_file() and "__pycache__" not in path.parts]
