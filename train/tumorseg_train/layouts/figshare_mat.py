"""Jun Cheng's brain slices as their author published them: MATLAB 7.3 files, which are HDF5.

One slice a file, `1.mat` to `3064.mat`, with the struct `cjdata`:

    image       int16 (512, 512); a few are (256, 256)
    tumorMask   uint8 of that shape, 1 in the tumour
    label       1 meningioma, 2 glioma, 3 pituitary tumour
    PID         the patient, as UTF-16 characters

MATLAB writes columns first, so that HDF5 shows every matrix transposed. `cvind.mat`, the author's folds, lies
beside them and is not a slice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.read import to_uint8

SUFFIX = ".mat"
FOLDS = "cvind.mat"
FOLDERS = "brainTumorDataPublic*"  # what the author's archives unpack to
LABELS = {1: "meningioma", 2: "glioma", 3: "pituitary"}
_REMEDY = "copy the file again, or take it out"


def is_slice(path: Path) -> bool:
    """Whether a file is one of the slices, by its name."""
    return path.suffix.lower() == SUFFIX and path.name != FOLDS and not path.name.startswith(".")


def read_origin(path: Path) -> tuple[str, str]:
    """(class, patient) of a slice; raises InputError."""
    with _cjdata(path) as data:
        label = _matrix(data, "label", path)
        number = float(label.flat[0]) if label.size == 1 and label.dtype.kind in "fiu" else label
        if not isinstance(number, float) or number not in LABELS:
            expected = ", ".join(f"{key} ({value})" for key, value in LABELS.items())
            raise InputError(f"{path}: cjdata/label is {number}, expected one of {expected}: {_REMEDY}")
        codes = _matrix(data, "PID", path)
        if codes.dtype.kind not in "iu" or not codes.size or codes.min() < 33 or codes.max() > 126:
            raise InputError(f"{path}: cjdata/PID is no text, expected the patient's number: {_REMEDY}")
        return LABELS[int(number)], "".join(chr(code) for code in codes.ravel())


def read_slice_image(path: Path) -> npt.NDArray[np.uint8]:
    """The slice as uint8 (H, W), windowed from its own minimum to its maximum as the runtime windows any
    integers (`tumorseg_runtime.images.read`); raises InputError.
    """
    with _cjdata(path) as data:
        return to_uint8(_plane(data, "image", path), str(path))


def read_slice_mask(path: Path) -> npt.NDArray[np.uint8]:
    """The tumour's mask as it is stored, (H, W), 0 and 1; raises InputError."""
    with _cjdata(path) as data:
        mask = _plane(data, "tumorMask", path)
        if mask.min() < 0 or mask.max() > 255:
            raise InputError(
                f"{path}: cjdata/tumorMask holds {mask.min()} to {mask.max()}, expected 0 and 1: {_REMEDY}"
            )
        return mask.astype(np.uint8)


@contextlib.contextmanager
def _cjdata(path: Path) -> Iterator[Any]:
    """The open struct of a slice; what HDF5 finds wrong while it is read is an InputError."""
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError(
            f"{path}: needs h5py, which is not installed: pip install 'tumorseg[train]'"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            data = file.get("cjdata")
            if not isinstance(data, h5py.Group):
                raise InputError(
                    f"{path}: has no struct 'cjdata', expected one of Cheng's slices: take it out"
                )
            yield data
    except OSError as error:  # also what is wrong inside the file
        raise InputError(
            f"{path}: cannot be read as HDF5 ({str(error).splitlines()[0]}), expected a MATLAB 7.3 file: "
            f"{_REMEDY}"
        ) from error


def _matrix(data: Any, name: str, path: Path) -> npt.NDArray[Any]:
    found = data.get(name)
    if not hasattr(found, "dtype"):  # absent, or a struct
        raise InputError(f"{path}: has no cjdata/{name}, expected a slice of Cheng's data: {_REMEDY}")
    return np.asarray(found)


def _plane(data: Any, name: str, path: Path) -> npt.NDArray[np.integer[Any]]:
    """A matrix of integers (H, W), rows first."""
    found = _matrix(data, name, path)
    if found.ndim != 2 or 0 in found.shape or found.dtype.kind not in "iu":
        raise InputError(
            f"{path}: cjdata/{name} is {found.dtype} {found.shape}, expected integers (height, width): "
            f"{_REMEDY}"
        )
    return np.ascontiguousarray(found.T)
