"""Which files `tumorseg predict` reads, and the names of what it writes for them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.frames import DICOM_SUFFIXES, is_dicom
from tumorseg_runtime.images.read import SUFFIXES

MASK = re.compile(r".+_mask(_\d+)?")


def check_apart(out: Path, files: tuple[Path, ...]) -> None:
    """Raise InputError where pictures would be written among those that are read, or over them."""
    for target in (out / "masks", out / "overlays", out / "probabilities"):
        written = target.resolve()
        for path in files:
            read = path.resolve()
            if written.is_relative_to(read) or read.is_relative_to(written):
                raise InputError(
                    f"{target}: is written, {path} is read, expected them apart: choose another folder"
                )


def is_mask(path: Path) -> bool:
    """True for what the datasets' layouts have as masks: `1_mask.png`, and files in masks/ beside images/."""
    beside = path.parent.name == "masks" and (path.parent.parent / "images").is_dir()
    return beside or MASK.fullmatch(path.stem) is not None


def list_images(
    files: tuple[Path, ...], *, dicom: bool = False, log: Callable[[str], None] = lambda line: None
) -> list[Path]:
    """Files as given, folders as the images in them, sorted; raises InputError for a folder without any.

    dicom: DICOM files in folders are images, too. Masks in folders (`is_mask`) are not: `log` hears of them.
    """
    paths: list[Path] = []
    for path in files:
        if not path.is_dir():
            paths.append(path)
            continue
        found = sorted(
            Path(base, name)
            for base, _, names in os.walk(path, onerror=_refuse)
            for name in names
            if Path(name).suffix.lower() in SUFFIXES or (dicom and is_dicom(Path(base, name)))
        )
        inside = [one for one in found if not is_mask(one)]
        masks = f"{len(found) - len(inside)} masks (NAME_mask, or in masks/ beside images/)"
        if not inside:
            wanted = ", ".join((*SUFFIXES, *(DICOM_SUFFIXES if dicom else ())))
            but = f" but {masks}" if found else ""
            raise InputError(f"{path}: holds no images{but}, expected files ending in {wanted}")
        if len(inside) < len(found):
            log(f"{path}: skipped {masks}; to segment one, name its file")
        paths.extend(inside)
    return paths


def _refuse(error: OSError) -> None:
    raise InputError(
        f"{error.filename}: cannot be listed ({error.strerror or error}): check its rights"
    ) from error


def unique_names(paths: list[Path]) -> list[str]:
    """A name for each image's outputs: its stem, with as many parent folders before it as tell all apart;
    with its suffix where the stems never do (a.png beside a.jpg)."""
    whole = [Path(os.path.abspath(path)) for path in paths]
    twice = [str(path) for path, count in Counter(whole).items() if count > 1]
    if twice:
        raise InputError(f"{twice[0]}: was given twice, expected every file once: remove one")
    for keep_suffix in (False, True):
        parts = [(path if keep_suffix else path.with_suffix("")).parts[1:] for path in whole]
        for depth in range(1, max(map(len, parts)) + 1):
            names = ["__".join(part[-depth:]) for part in parts]
            if len({name.casefold() for name in names}) == len(names):
                return names
    raise InputError("the files' paths differ only in case or in '__': rename one, or run them apart")
