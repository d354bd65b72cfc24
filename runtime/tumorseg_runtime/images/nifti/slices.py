"""The slices of a NIfTI volume, read one at a time and never held together.

An image's values go linearly from the least of its whole volume, 0, to the greatest, 255, rounded half to
even (a constant volume becomes 0), after scl_slope and scl_inter: one window for all slices, found by reading
the volume once before. A mask's are whole numbers. A slice is shown with the patient's front at the top and
right side at the left, whatever the order in which the file stores it.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.reading import state_of
from tumorseg_runtime.images.frame import Frame
from tumorseg_runtime.images.nifti.header import Volume, open_volume
from tumorseg_runtime.images.nifti.stream import open_stream, reading, told
from tumorseg_runtime.images.read import windowed

_LARGEST_LABEL = 65535
_WIDEST = 1e300  # between the least and the greatest value, which is computed with
_OPEN = 4  # files that a thread holds open


def read_volume(path: Path) -> Iterator[Frame]:
    """A volume's slices as frames, named `path[index]`, in the order in which the file stores them.

    Raises InputError for a file that is not taken, damaged or cut off, BackendError without nibabel.
    """
    volume = open_volume(path)
    low, high = value_range(volume)
    for index, stored in enumerate(_every_slice(volume)):
        yield Frame(
            f"{path}[{index}]", windowed(volume.shown(stored), low, high), (volume.spacing,), index,
            volume.slices,
        )  # fmt: skip


def read_slice(path: Path, index: int) -> npt.NDArray[np.uint8]:
    """The pixels of one frame of `read_volume`, uint8 (H, W); slices in rising order are read fastest."""
    volume = open_volume(path)
    return windowed(volume.shown(_one_slice(volume, index)), *value_range(volume))


def read_label_slice(path: Path, index: int) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """One slice of a volume that is a mask: its whole numbers (H, W); raises InputError for others."""
    volume = open_volume(path)
    values = volume.shown(_one_slice(volume, index)).astype(np.float64)
    whole = np.rint(values)
    if np.abs(values - whole).max() > 1e-3 or whole.min() < 0 or whole.max() > _LARGEST_LABEL:
        raise InputError(
            f"{path}[{index}]: holds {values.min():g} to {values.max():g}, expected whole numbers from 0 to "
            f"{_LARGEST_LABEL} in a mask: convert it"
        )
    labels: npt.NDArray[np.uint16] = whole.astype(np.uint16)
    return labels.astype(np.uint8) if labels.max() <= 255 else labels


def value_range(volume: Volume) -> tuple[float, float]:
    """The least and the greatest value, scaled; reads the whole file, once until it changes."""
    return _range(volume.path, state_of(volume.path))


@functools.lru_cache(maxsize=4096)
def _range(path: Path, state: tuple[int, ...]) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for values in _every_slice(open_volume(path)):
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    if high - low > _WIDEST:
        raise InputError(f"{path}: holds {low:g} to {high:g}, expected values less far apart: scale it")
    return low, high


def _every_slice(volume: Volume) -> Iterator[npt.NDArray[Any]]:
    """All slices as stored; raises InputError where there are fewer or more values than the header says."""
    with reading(volume.path) as file:
        file.seek(volume.start)
        for index in range(volume.slices):
            yield _values(volume, file, index)
        if file.read(1):  # a compressed file's checksum is looked at here
            raise InputError("holds more values than its header says: copy or convert it again")


def _one_slice(volume: Volume, index: int) -> npt.NDArray[Any]:
    """A slice as stored, from a file that this thread keeps open at the slice after its last."""
    key = (os.getpid(), volume.path, state_of(volume.path))
    with told(volume.path):
        file = _kept.files.pop(key, None) or open_stream(volume.path)
        try:
            file.seek(volume.start + index * _bytes(volume))
            values = _values(volume, file, index)
        except BaseException:
            file.close()
            raise
        _kept.files[key] = file  # the last one used is the last one
        while len(_kept.files) > _OPEN:
            _kept.files.pop(next(iter(_kept.files))).close()
        return values


def _values(volume: Volume, file: BinaryIO, index: int) -> npt.NDArray[Any]:
    """The slice that follows in an open file, (second axis, first axis), scaled."""
    width, height = volume.shape[:2]
    data = file.read(_bytes(volume))
    if len(data) < _bytes(volume):
        raise InputError(
            f"is cut off in slice [{index}] of {volume.slices}, expected a whole file: copy it again"
        )
    values = np.frombuffer(data, volume.kind).reshape(height, width)
    if (volume.slope, volume.intercept) != (1, 0):
        with np.errstate(over="ignore", invalid="ignore"):
            values = values.astype(np.float64) * volume.slope + volume.intercept
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(
            f"holds NaN or infinity in slice [{index}], expected numbers: set them to the background's value"
        )
    return values


def _bytes(volume: Volume) -> int:
    return volume.shape[0] * volume.shape[1] * volume.kind.itemsize


class _Files(dict[tuple[Any, ...], BinaryIO]):
    """Open files; closed when their thread ends."""

    def __del__(self) -> None:
        for file in self.values():
            file.close()


class _Kept(threading.local):
    """Files that a thread has open, by process, path and state."""

    def __init__(self) -> None:
        self.files = _Files()


_kept = _Kept()
