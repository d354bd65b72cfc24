"""A NIfTI volume of masks or probabilities, written slice by slice, on the grid of the one they belong to."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.files import writing_bytes
from tumorseg_runtime.images.nifti.header import Volume

# What says where the voxels lie, copied bit for bit; nothing else: texts and extensions may name a patient.
_PLACE = (
    "dim", "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip
_LEVEL = 6  # of compression


class SliceWriter:
    """Takes the slices of a volume as they are shown, (H, W), from the first to the last as it is stored."""

    def __init__(self, volume: Volume, kind: np.dtype[Any], file: BinaryIO) -> None:
        self._volume, self._kind, self._file = volume, kind, file

    def add(self, shown: npt.NDArray[Any]) -> None:
        """Write the next slice."""
        self._file.write(np.ascontiguousarray(self._volume.stored(shown), self._kind).tobytes())


@contextlib.contextmanager
def writing_volume(path: Path, volume: Volume, kind: str, slope: float = 1.0) -> Iterator[SliceWriter]:
    """A writer of a file with the shape, affine and orientation of `volume`, whole or not at all.

    kind: of the stored values, such as 'uint8'; slope: what one of them is worth. The file is compressed
    where its name ends in .gz.
    """
    header = type(volume.header)(endianness=volume.header.endianness)
    for name in _PLACE:
        header[name] = volume.header[name]
    stored = np.dtype(kind).newbyteorder(volume.header.endianness)
    header.set_data_dtype(stored)
    header["vox_offset"] = header.single_vox_offset
    header["scl_slope"], header["scl_inter"] = slope, 0
    header["cal_max"] = 1
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(writing_bytes(path))
        if path.suffix.casefold() == ".gz":
            packed = gzip.GzipFile("", "wb", _LEVEL, file, mtime=0)
            file = stack.enter_context(packed)  # type: ignore[assignment]
        file.write(header.binaryblock.ljust(header.single_vox_offset, b"\0"))
        yield SliceWriter(volume, stored, file)
