"""The pixel data of a DICOM file against its header, before anything is decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.dicom.checks import check_stream, frames_of
from tumorseg_runtime.images.header import MAX_PIXELS

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_PIXELS_OF_ALL_FRAMES = 2_000_000_000  # frames are decoded one at a time; this bounds the work
GRAYS = ("MONOCHROME1", "MONOCHROME2")
_RLE = "1.2.840.10008.1.2.5"
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_AGAIN = "copy or export the file again"


def check_header(dataset: Dataset) -> None:
    """Raise InputError for a header that cannot be one of an image, or of one that is too large; whatever
    pydicom raises where an element is missing."""
    if "PixelData" not in dataset:
        raise InputError("holds no pixels, expected an image: leave it out")
    samples, colours = int(dataset["SamplesPerPixel"].value), str(dataset.PhotometricInterpretation)
    said = _said_frames(dataset)
    _check_size(dataset, 1 if said is None else said)
    if (colours, samples) not in [(c, 1) for c in (*GRAYS, "PALETTE COLOR")] + [(c, 3) for c in _COLOURS]:
        raise InputError(
            f"is {colours} with {samples} samples per pixel, expected one of "
            f"{', '.join((*GRAYS, 'PALETTE COLOR', *_COLOURS))}: convert it"
        )
    allocated, bits, high = int(dataset.BitsAllocated), int(dataset.BitsStored), _high_bit(dataset)
    if not 1 <= bits <= high + 1 <= allocated or (high != bits - 1 and not _plain(dataset)):
        raise InputError(
            f"says {bits} bits stored of {allocated} allocated, the highest {high}, expected "
            f"{max(bits - 1, 0)}: export it again"
        )


def separate_frames(dataset: Dataset) -> int:
    """Number of frames, counted in the pixel data; compressed ones are checked and then lie apart there.

    Raises InputError where the header says another number, or a frame's own header contradicts it.
    """
    said = _said_frames(dataset)
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        said = said or 1
        samples = 2 if dataset.PhotometricInterpretation == "YBR_FULL_422" else int(dataset.SamplesPerPixel)
        bits = int(dataset.Rows) * int(dataset.Columns) * samples * int(dataset.BitsAllocated)
        more = 8 * len(dataset.PixelData) - said * bits
        if more >= max(bits, 16):  # a byte may fill the last word
            raise InputError(f"holds {said + more // bits} frames, its header says {said}: {_AGAIN}")
        return said  # where some are missing pydicom says so
    from pydicom.encaps import encapsulate

    streams = frames_of(dataset.PixelData, whole_fragments=syntax == _RLE)
    count = len(streams)
    if count != (said or max(count, 1)):
        raise InputError(f"holds {count} frames, its header says {said or 1}: {_AGAIN}")
    _check_size(dataset, count)
    dataset.PixelData = encapsulate([check_stream(stream, dataset) for stream in streams], has_bot=False)
    dataset.NumberOfFrames = count
    for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if name in dataset:
            del dataset[name]
    return count


def decoded_bits(dataset: Dataset) -> int:
    """What the decoder is to take for `BitsStored`: all bits where `significant_bits` picks them."""
    return int(dataset.BitsAllocated if _plain(dataset) else dataset.BitsStored)


def significant_bits(stored: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[Any]:
    """Decoded values without what lies above `HighBit` (overlays, say) or below the lowest bit stored."""
    if not _plain(dataset) or dataset.BitsAllocated == 1:
        return stored
    width = 8 * stored.dtype.itemsize
    return np.asarray((stored << (width - 1 - _high_bit(dataset))) >> (width - int(dataset.BitsStored)))


def _check_size(dataset: Dataset, count: int) -> None:
    rows, columns = int(dataset["Rows"].value), int(dataset["Columns"].value)
    if rows < 1 or columns < 1 or count < 1:
        raise InputError(
            f"its header says {count} frames of {columns}x{rows} pixels, expected at least one each: {_AGAIN}"
        )
    if rows * columns > MAX_PIXELS or rows * columns * count > MAX_PIXELS_OF_ALL_FRAMES:
        raise InputError(
            f"has {count} frames of {columns}x{rows} pixels, expected at most {MAX_PIXELS} in one "
            f"and {MAX_PIXELS_OF_ALL_FRAMES} in all: split or resize it"
        )


def _said_frames(dataset: Dataset) -> int | None:
    value = dataset.get("NumberOfFrames")
    return None if value in (None, "") else int(value)


def _high_bit(dataset: Dataset) -> int:
    value = dataset.get("HighBit")
    return int(dataset.BitsStored) - 1 if value is None else int(value)


def _plain(dataset: Dataset) -> bool:
    """Whether the bits of a pixel lie in the file as the header says: not compressed, or by runs alone."""
    syntax = dataset.file_meta.TransferSyntaxUID
    return bool(syntax == _RLE or not syntax.is_encapsulated)
