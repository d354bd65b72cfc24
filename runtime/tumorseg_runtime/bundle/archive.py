"""A bundle as one file, for a release page, a cache or CI: a zip that the same bundle always gives.

Entries are stored in the order of their names, without compression (weights hardly shrink), with one fixed
time and one fixed mode: the bytes depend on the bundle alone, and on no version of zlib. Unpacking trusts
nothing: only regular files named in `bundle.json`, each of at most its sealed size, are written, into a
folder that appears when every hash is right.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
from pathlib import Path

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.bundle.seal import BESIDE, FORMAT, INDEX, sha256_of
from tumorseg_runtime.core.errors import BundleError, InputError
from tumorseg_runtime.core.files import make_folder, staged, write_bytes, writing

TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip can hold
MODE = 0o100644  # a regular file


def pack(bundle: Path, archive: Path) -> str:
    """Write a bundle, checked against its seal, and its signature into the zip `archive`; its SHA-256.

    The same bundle gives the same bytes. Raises BundleError, InputError where `archive` cannot be written.
    """
    opened = Bundle.open(bundle)
    if archive.resolve().is_relative_to(bundle.resolve()):
        raise InputError(f"{archive}: lies in the bundle, which is sealed: choose another --out")
    first = {INDEX: opened.index, **opened.beside()}
    with writing(archive) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as file:
        for name in (*first, *sorted(opened.files)):
            entry = zipfile.ZipInfo(name, TIME)
            entry.create_system, entry.external_attr = 3, MODE << 16  # Unix, wherever it is made
            file.writestr(entry, first[name] if name in first else opened.read(name))
    return sha256_of(archive)


def unpack(archive: Path, bundle: Path, sha256: str | None = None) -> Bundle:
    """Write the bundle in the zip `archive` into the new folder `bundle`, and open it.

    sha256: what the archive's must be. Nothing is left where anything is wrong: raises BundleError for
    another hash, names that lead elsewhere, files that the seal does not know or that differ from it,
    InputError for an archive that is no file or cannot be read, and for a folder that is not empty.
    """
    try:
        archive.open("rb").close()
    except OSError as error:
        raise InputError(
            f"{archive}: cannot be read ({error.strerror or error}), expected a file of "
            "`tumorseg bundle pack`: check the path and its rights"
        ) from error
    if sha256 is not None and (found := sha256_of(archive)) != sha256.lower():
        raise BundleError(f"{archive}: has SHA-256 {found}, expected {sha256.lower()}: fetch it again")
    if bundle.exists() and not (bundle.is_dir() and not any(bundle.iterdir())):
        raise InputError(f"{bundle}: exists, expected a new or empty folder: choose another --out")
    try:
        with zipfile.ZipFile(archive) as file, staged(bundle) as part:
            _extract(archive, file, part)
            opened = Bundle.open(part)  # every hash, and no file too few
    except (zipfile.BadZipFile, EOFError, RuntimeError) as error:
        raise BundleError(
            f"{archive}: is no zip of `tumorseg bundle pack` ({error}): fetch it again"
        ) from error
    return dataclasses.replace(opened, root=bundle)


def _extract(archive: Path, file: zipfile.ZipFile, part: Path) -> None:
    """Write the entries into the folder `part`: the index first, which says what else there may be."""
    entries = file.infolist()
    names = [entry.filename for entry in entries]
    if INDEX not in names or len(set(names)) < len(names):
        raise BundleError(f"{archive}: has no {INDEX} or a name twice, expected a bundle: fetch it again")
    _write(archive, file, file.getinfo(INDEX), part, FORMAT.max_bytes)
    limits = {name: seal.bytes for name, seal in Bundle.read_index(part).files.items()}
    limits |= BESIDE
    for entry in entries:
        if entry.filename == INDEX:
            continue
        if entry.filename not in limits:
            raise BundleError(
                f"{archive}: holds {entry.filename!r}, which its seal does not know: fetch it again"
            )
        _write(archive, file, entry, part, limits[entry.filename])


def _write(archive: Path, file: zipfile.ZipFile, entry: zipfile.ZipInfo, part: Path, limit: int) -> None:
    """One entry as a regular file of at most `limit` bytes, inside `part`."""
    name = entry.filename
    if os.path.isabs(name) or os.path.normpath(name) != name or name.startswith("..") or "\\" in name:
        raise BundleError(f"{archive}: {name!r} leads out of the bundle: do not use this file")
    size = entry.file_size
    if size > limit:
        raise BundleError(f"{archive}: {name} has {size} bytes, expected at most {limit}")
    if entry.compress_type != zipfile.ZIP_STORED:  # so that no entry is larger than the archive
        raise BundleError(f"{archive}: {name} is compressed, expected it stored: pack it again")
    path = part / name
    make_folder(path.parent)
    write_bytes(path, file.read(entry), durable=False)
