"""Images in an object store (s3://, gs://, hdfs://, ...), read by pyarrow, which comes with the extra ray."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import click

from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.core.files import write_bytes
from tumorseg_runtime.images.frames import DICOM_SUFFIXES
from tumorseg_runtime.images.nifti.names import is_volume
from tumorseg_runtime.images.read import OTHER_IMAGES, SUFFIXES
from tumorseg_runtime.outputs.image_files import is_mask

MOST_BYTES = 2**30  # of one object: the largest that the runtime reads, a DICOM file
_URI = re.compile(r"([a-z][a-z0-9+]*)://", re.ASCII)


@dataclasses.dataclass(frozen=True)
class StoredFile:
    """One object. root: the URI that was given, which may hold an endpoint and keys and is never shown.
    scheme, path: what is shown. stamp: its size in bytes and time of the last change in ns."""

    root: str = dataclasses.field(repr=False)
    scheme: str
    path: str
    stamp: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"


def is_uri(text: str) -> bool:
    """True for what names an object store."""
    return _URI.match(text) is not None


class PathOrUri(click.Path):
    """The type of a file, a folder or, as text, the URI of an object store."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A path unless it is a URI."""
        return value if isinstance(value, str) and is_uri(value) else super().convert(value, param, ctx)


def check_stores(uris: Sequence[str], *, ray: bool, series: bool) -> None:
    """Raise InputError for stores where the engine is not Ray, or whole series are wanted."""
    shown = [uri.partition("?")[0] for uri in uris]
    if uris and not ray:
        raise InputError(f"{shown[0]}: is in an object store, expected --engine ray for that")
    if uris and series:
        raise InputError(f"{shown[0]}: is a store, whole series are read from folders: copy them")


def list_stored(root: str, log: Callable[[str], None]) -> list[StoredFile]:
    """The images below a URI, sorted, told by their suffixes alone; raises InputError for none.

    Masks are skipped as in folders (`list_images`); `log` hears of them.
    """
    match = _URI.match(root)
    assert match is not None  # `is_uri` has looked
    shown = root.partition("?")[0]
    try:
        system, path = _open(root)
        info = system.get_file_info(path)
        found = [info]
        if not info.is_file:
            from pyarrow.fs import FileSelector

            selector = FileSelector(path, recursive=True)
            found = [one for one in system.get_file_info(selector) if one.is_file]
    except (OSError, ValueError) as error:
        raise InputError(
            f"{shown}: cannot be listed ({_said(error)}): check the URI and its rights"
        ) from error
    files = [one for one in found if _is_image(one.path)]
    folders = {Path(one.path).parent for one in files}
    inside = [one for one in files if info.is_file or not is_mask(Path(one.path), folders.__contains__)]
    unread = Counter(
        suffix for one in found if (suffix := PurePosixPath(one.path).suffix.lower()) in OTHER_IMAGES
    )
    if unread:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(unread.items()))
        log(f"{shown}: skipped images of kinds that are not read: {kinds}; convert them to PNG")
    if len(inside) < len(files):
        log(f"{shown}: skipped {len(files) - len(inside)} masks; to segment one, name its object")
    if not inside:
        raise InputError(f"{shown}: holds no images, expected objects with the suffix of an image")
    stored = [StoredFile(root, match[1], one.path, (one.size, one.mtime_ns)) for one in inside]
    return sorted(stored, key=lambda one: one.path)


def fetch(stored: StoredFile, folder: Path) -> tuple[Path, list[int]]:
    """A copy of an object in `folder`, under its own name, and the stamp of what was copied.

    Raises InputError.
    """
    try:
        system, _ = _open(stored.root)
        info = system.get_file_info(stored.path)
        if not info.is_file:
            raise InputError(f"{stored}: is no longer there, expected an object: list the store again")
        if info.size > MOST_BYTES:
            raise InputError(
                f"{stored}: has {info.size} bytes, expected at most {MOST_BYTES}: resize it first"
            )
        with system.open_input_stream(stored.path) as source:
            data = source.read()
    except OSError as error:
        raise InputError(
            f"{stored}: cannot be read ({_said(error)}): check the store and its rights"
        ) from error
    local = folder / PurePosixPath(stored.path).name
    write_bytes(local, data, durable=False)
    return local, [info.size, info.mtime_ns]


@functools.lru_cache
def _open(root: str) -> tuple[Any, str]:
    try:
        from pyarrow.fs import FileSystem
    except ModuleNotFoundError as error:
        raise BackendError(
            "pyarrow is not installed, files in an object store expect the extra 'ray': "
            "pip install 'tumorseg[ray]'"
        ) from error
    system, path = FileSystem.from_uri(root)
    return system, path


def _is_image(path: str) -> bool:
    return path.lower().endswith((*SUFFIXES, *DICOM_SUFFIXES)) or is_volume(Path(path))


def _said(error: Exception) -> str:
    """The first sentence of what the store says."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
