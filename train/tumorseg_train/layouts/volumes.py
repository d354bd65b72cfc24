"""NIfTI volumes as slices: `scan.nii.gz[12]` names an image like any other, and its mask's slice is its mask.

A slice's hash follows from its file's and its index, so that a split holds the very files, and equal volumes
have equal slices.
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

from tumorseg_runtime.bundle.bundle import sha256_of
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.reading import state_of
from tumorseg_runtime.images.nifti.header import open_volume
from tumorseg_runtime.images.nifti.names import is_volume, slice_of


def file_of(path: Path) -> Path:
    """The file that holds an image: of a slice its volume."""
    found = slice_of(path)
    return path if found is None else found[0]


def slice_names(path: Path) -> list[str]:
    """What is added to a volume's name to name each of its slices; [''] for any other file, and for a volume
    that cannot be read: reading it says why."""
    try:
        count = open_volume(path).slices if is_volume(path) else 0
    except InputError:
        count = 0
    return [f"[{index}]" for index in range(count)] or [""]


def content_hash(path: Path) -> str:
    """SHA-256 of an image's content, of a slice what follows from its volume's; raises OSError."""
    found = slice_of(path)
    if found is None:
        return sha256_of(path)
    whole = _hash(found[0], state_of(found[0]))
    return hashlib.sha256(f"{whole}[{found[1]}]".encode()).hexdigest()


def same_content(path: Path, sha256: str) -> bool:
    """Whether an image is there and has this hash."""
    return os.path.isfile(file_of(path)) and content_hash(path) == sha256


def check_grid(image: Path, mask: Path) -> None:
    """Raise InputError where an image and its mask are slices, and their volumes' voxels are not the same."""
    volumes = [found[0] for found in map(slice_of, (image, mask)) if found]
    if len(volumes) == 2:
        problem = open_volume(volumes[0]).grid_problem(open_volume(volumes[1]))
        if problem:
            raise InputError(f"{problem} as {volumes[0].name}: export it on its image's grid")


@functools.lru_cache(maxsize=4096)
def _hash(path: Path, state: tuple[int, ...]) -> str:
    return sha256_of(path)
