"""Names of NIfTI files, and of the slices in them: `scan.nii.gz[12]`."""

from __future__ import annotations

import re
from pathlib import Path

SUFFIXES = (".nii", ".nii.gz")
_SLICE = re.compile(r"(.+\.nii(?:\.gz)?)\[(\d{1,9})\]", re.IGNORECASE | re.DOTALL)


def suffix_of(path: Path) -> str:
    """`.nii.gz` where a name ends so, else its suffix; as it is written."""
    ends = path.name.casefold().endswith(SUFFIXES[1])
    return path.name[-len(SUFFIXES[1]) :] if ends else path.suffix


def stem_of(path: Path) -> str:
    """A file's name without `suffix_of` it."""
    return path.name.removesuffix(suffix_of(path))


def is_volume(path: Path) -> bool:
    """Whether a name is a NIfTI file's."""
    return suffix_of(path).casefold() in SUFFIXES


def slice_of(path: Path) -> tuple[Path, int] | None:
    """The file and the index of a slice's name; None for the name of a file."""
    match = _SLICE.fullmatch(str(path))
    return None if match is None else (Path(match[1]), int(match[2]))
