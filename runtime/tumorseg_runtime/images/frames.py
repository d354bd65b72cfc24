"""Files as frames: a plain image is one frame, a DICOM file as many as it holds, a NIfTI volume its slices;
all read lazily.

What kind a file is, is told by its name and, without a telling suffix, by its content: DICOM files often
have none, or end in the number of their instance.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.decoder_lines import caught
from tumorseg_runtime.images.frame import Frame, WindowedFile
from tumorseg_runtime.images.nifti.names import is_volume
from tumorseg_runtime.images.read import SUFFIXES, read_image

DICOM_SUFFIXES = (".dcm", ".dicom")
_MARK_AT, _MARK = 128, b"DICM"


def read_frames(path: str | Path | WindowedFile) -> Iterator[Frame]:
    """The frames of a plain image, DICOM file or NIfTI volume, one decoded at a time.

    Raises InputError where the file is missing, too large, damaged or of a kind that is not read, and
    BackendError for a DICOM file without the extra 'dicom', a NIfTI file without 'nifti'. Errors come when
    the frame is asked for.
    """
    span = path.span if isinstance(path, WindowedFile) else None
    path = Path(path)
    if is_volume(path):
        from tumorseg_runtime.images.nifti.slices import read_volume

        return read_volume(path)
    if is_dicom(path):
        from tumorseg_runtime.images.dicom.read import read_dicom

        return read_dicom(path, span)
    return _one(path)


def _one(path: Path) -> Iterator[Frame]:
    with caught() as damage:
        pixels = read_image(path)
    yield Frame(str(path), pixels, warnings=tuple(damage))


def read_frame(path: str | Path | WindowedFile) -> Frame:
    """The frame of a file that holds one; raises InputError where it holds more, and as `read_frames`."""
    frame = next(read_frames(path))
    if frame.count != 1:
        raise InputError(
            f"{path}: holds {frame.count} frames, expected one: "
            "pass each of tumorseg_runtime.read_frames(path), or the path to Segmenter.stream"
        )
    return frame


def is_dicom(path: Path) -> bool:
    """True for a DICOM suffix, and for a file without a suffix, or with a number for one, that has DICOM's
    mark; False where such a file cannot be read."""
    suffix = path.suffix.lower()
    if suffix in DICOM_SUFFIXES:
        return True
    if suffix in SUFFIXES or (suffix and not suffix[1:].isdigit()) or not os.path.isfile(path):
        return False
    try:
        with path.open("rb") as file:
            return file.read(_MARK_AT + len(_MARK))[_MARK_AT:] == _MARK
    except OSError:
        return False  # whoever reads it next says why
