"""Which files `tumorseg predict` reads, and the names of what it writes for them."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.dicom.kind import not_an_image
from tumorseg_runtime.images.frames import DICOM_SUFFIXES, is_dicom
from tumorseg_runtime.images.nifti.names import SUFFIXES as VOLUMES
from tumorseg_runtime.images.nifti.names import is_volume, stem_of
from tumorseg_runtime.images.read import OTHER_IMAGES, SUFFIXES

_LONGEST_NAME = 180  # bytes; a file's name may have 255, with frame, suffix and temporary name
_HASH, _SHOWN = 8, 4  # letters of a hash; files named in a line
_NONE: Mapping[str, str] = MappingProxyType({})
MASK = re.compile(r".+_mask(_\d+)?")
MASK_VOLUME = re.compile(r".+[_-](mask|seg|segmentation|label)")


def check_apart(out: Path, files: tuple[Path, ...], folders: tuple[str, ...]) -> None:
    """Raise InputError where one of the folders in `out` would be written among files that are read."""
    for target in map(out.joinpath, folders):
        written = target.resolve()
        for path in files:
            read = path.resolve()
            if written.is_relative_to(read) or read.is_relative_to(written):
                raise InputError(
                    f"{target}: is written, {path} is read, expected them apart: choose another folder"
                )


def is_mask(path: Path, is_folder: Callable[[Path], bool] = Path.is_dir) -> bool:
    """True for what the datasets' layouts have as masks: `1_mask.png`, `1_seg.nii.gz`, and files in masks/
    beside images/. is_folder: whether there is such a folder."""
    beside = path.parent.name == "masks" and is_folder(path.parent.parent / "images")
    stem = stem_of(path)
    whole = is_volume(path) and MASK_VOLUME.fullmatch(stem.casefold()) is not None
    return beside or whole or MASK.fullmatch(stem) is not None


def list_images(
    files: tuple[Path, ...], *, dicom: bool = False, log: Callable[[str], None] = lambda line: None
) -> list[Path]:
    """Files as given, folders as the images in them, sorted; raises InputError for a folder without any.

    dicom: DICOM files and NIfTI volumes in folders are images, too. Masks in folders (`is_mask`) are not, nor
    are a study's
    reports, segmentations and the like (`not_an_image`): `log` hears of them.
    """
    paths: list[Path] = []
    for path in files:
        if not os.path.isdir(path):
            paths.append(path)
            continue
        there = [Path(base, name) for base, _, names in os.walk(path, onerror=_refuse) for name in names]
        found = sorted(
            one
            for one in there
            if one.suffix.lower() in SUFFIXES or (dicom and (is_volume(one) or is_dicom(one)))
        )
        unread = Counter(one.suffix.lower() for one in there if one.suffix.lower() in OTHER_IMAGES)
        if unread:
            kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(unread.items()))
            log(f"{path}: skipped images of kinds that are not read: {kinds}; convert them to PNG")
        others = Counter(kind for kind in map(_other_dicom, found) if kind)
        if others:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
            log(f"{path}: skipped DICOM files that are no images: {kinds}")
            found = [one for one in found if not _other_dicom(one)]
        inside = [one for one in found if not is_mask(one)]
        masks = f"{len(found) - len(inside)} masks (NAME_mask, NAME_seg.nii, or in masks/ beside images/)"
        if not inside:
            wanted = ", ".join((*SUFFIXES, *((*DICOM_SUFFIXES, *VOLUMES) if dicom else ())))
            but = f" but {masks}" if found else " but other DICOM files" if others else ""
            raise InputError(f"{path}: holds no images{but}, expected files ending in {wanted}")
        if len(inside) < len(found):
            log(f"{path}: skipped {masks}; to segment one, name its file")
        paths.extend(inside)
    return paths


def _other_dicom(path: Path) -> str | None:
    return None if path.suffix.lower() in SUFFIXES or is_volume(path) else not_an_image(path)


def _refuse(error: OSError) -> None:
    raise InputError(
        f"{error.filename}: cannot be listed ({error.strerror or error}): check its rights"
    ) from error


def unique_names(
    paths: Sequence[object],
    earlier: Mapping[str, str] = _NONE,
    log: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """A name for each image's outputs: its stem; where several have that, as many parent folders before it
    as tell them apart, then its suffix, then a hash of its path. What is too long is cut, with a hash.

    paths: files, or objects of a store, which are told apart by their text.
    earlier: names of files of an earlier run into the same folder: those files keep them, and no other gets
    one. log: hears which files had to be told apart. Raises InputError for a file that is given twice.
    """
    whole = {str(path): Path(os.path.abspath(str(path))) for path in paths}
    twice = [str(path) for path, count in Counter(map(os.path.abspath, map(str, paths))).items() if count > 1]
    if twice:
        raise InputError(f"{twice[0]}: was given twice, expected every file once: remove one")
    names = {key: earlier[key] for key in whole if key in earlier}
    taken = {name.casefold() for name in earlier.values()}
    if earlier:  # the rest as if there had been none, so that a run that was broken off ends as another would
        for key, name in zip(whole, unique_names(paths, log=log), strict=True):
            if key not in names and name.casefold() not in taken:
                names[key] = name
        taken |= {name.casefold() for name in names.values()}
    left = [key for key in whole if key not in names]
    deepest = max((len(path.parts) for path in whole.values()), default=1)
    told = False
    for suffix, depth in (*itertools.product((False, True), range(1, deepest)), (True, 0)):
        wished = {key: _name(whole[key], depth, suffix=suffix) for key in left}
        counts = Counter(name.casefold() for name in wished.values())
        for key, name in wished.items():
            if counts[name.casefold()] == 1 and name.casefold() not in taken:
                names[key] = name
        taken |= {names[key].casefold() for key in left if key in names}
        left = [key for key in left if key not in names]
        if left and not told:
            told = True
            shown = ", ".join(left[:_SHOWN]) + (", ..." if len(left) > _SHOWN else "")
            log(f"{len(left)} files share names with others, their outputs get longer ones: {shown}")
    return [names[str(path)] for path in paths]


def _name(path: Path, depth: int, *, suffix: bool) -> str:
    """Name of a path with `depth` of its parts, at most as long as a file's may be; depth 0: with a hash."""
    parts = path.parts[-max(depth, 1) :]
    name = "__".join(parts if suffix else (*parts[:-1], stem_of(path)))
    if depth and len(os.fsencode(name)) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:_HASH]
    start = os.fsencode(name)[: _LONGEST_NAME - _HASH - 1].decode("utf-8", "ignore")
    return f"{start}-{digest}"
