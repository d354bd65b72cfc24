"""DICOM files as frames (extra `dicom`: pydicom, and pylibjpeg for the compressed ones).

What becomes of the stored values:

- the bits from `HighBit` downwards, `BitsStored` of them, are the value; what else lies in the word is not.
- gray: rescale slope and intercept or modality table; then the first VOI table or window of the file, by
  its function (linear, linear exact, sigmoid), to 0..255; a table's entries by the bits that it has (see
  `tables`). Without one: unsigned integers of at most 8 bits
  that are not rescaled are spread over 0..255 as they are; all others are windowed linearly from the
  frame's own minimum to its maximum, pixels of padding left out, like plain images of more than 8 bits.
  Rounded half to even. MONOCHROME1 is inverted after that, and the padding left out becomes 0.
- colour (RGB, YBR_FULL, YBR_FULL_422, YBR_ICT, YBR_RCT): RGB; over 8 bits by minimum and maximum of the
  frame. PALETTE COLOR: RGB through its table.

Only the elements of `_TAGS` are ever read: patient data is not, so no message and no output can hold it
(text that is burned into the pixels is part of the image). Sizes are judged from the header before pixels
are decoded, and each compressed frame's own header against it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.images.dicom.kind import kind_of, meta_elements, transfer_syntax
from tumorseg_runtime.images.dicom.lookup_tables import Span, gray_to_uint8, palette_to_uint8
from tumorseg_runtime.images.dicom.pixel_data import (
    GRAYS,
    check_header,
    decoded_bits,
    separate_frames,
    significant_bits,
)
from tumorseg_runtime.images.dicom.repair import drop_unusable
from tumorseg_runtime.images.dicom.spacing import spacings_of as _spacings
from tumorseg_runtime.images.frame import Frame
from tumorseg_runtime.images.read import read_file, to_uint8

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_FILE_BYTES = 2**30
_DEFLATED = "1.2.840.10008.1.2.1.99"
_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality",
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows",
    "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter",
    "WindowWidth", "VOILUTFunction", "VOILUTSequence", "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData", "SegmentedBluePaletteColorLookupTableData", "PixelSpacing",
    "ImagerPixelSpacing", "NominalScannedPixelSpacing", "SequenceOfUltrasoundRegions",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", "PixelData",
]  # fmt: skip


def read_dicom(path: Path, span: Span | None = None) -> Iterator[Frame]:
    """The frames of a DICOM file, decoded one at a time.

    span: as in `lookup_tables.gray_to_uint8`. Raises InputError, with the reason, where the file cannot be
    decoded rightly; BackendError without pydicom. The name of a frame is the path, with '[index]' where there
    are several.
    """
    for file, index, stored in stored_frames(path):
        with told(path, f"frame [{index}]"):
            pixels = _to_pixels(stored, file.header, index, span)
            spacings = _spacings(file.header, index)
            instance = str(file.header.get("SOPInstanceUID") or "") or None
        name = str(path) if file.count == 1 else f"{path}[{index}]"
        yield Frame(name, pixels, spacings, index, file.count, file.warnings, instance)


@dataclasses.dataclass(frozen=True)
class DicomFile:
    """A file that was opened. header: the elements of `_TAGS`, without what cannot be used, of which
    `warnings` tell. count: of its frames."""

    header: Dataset
    count: int
    warnings: tuple[str, ...]


def stored_frames(path: Path) -> Iterator[tuple[DicomFile, int, npt.NDArray[Any]]]:
    """The file, and each frame's index and stored values, decoded one at a time; raises as `read_dicom`."""
    try:
        from pydicom.pixels.utils import iter_pixels
    except ModuleNotFoundError as error:
        raise BackendError(
            f"{path}: is a DICOM file and {str(error.name).partition('.')[0]} is not installed, "
            "expected the extra 'dicom': pip install 'tumorseg[dicom]'"
        ) from error
    dataset = _read(path)
    with told(path, "header"):  # its elements are parsed when they are asked for
        other = kind_of(str(dataset.get("SOPClassUID") or ""), str(dataset.get("Modality") or ""))
    if other:
        raise InputError(f"{path}: is a DICOM {other}, expected an image: leave it out")
    with told(path, "header"):
        check_header(dataset)
    with told(path, "pixel data"):
        count = separate_frames(dataset)
        frames = iter_pixels(dataset, bits_stored=decoded_bits(dataset))
    with told(path, "header"):
        file = DicomFile(dataset, count, drop_unusable(dataset))
    for index in range(count):
        with told(path, f"frame [{index}]"):
            stored = next(frames, None)
            if stored is None:
                raise InputError(
                    f"holds {index} frames, its header says {count}: copy or export the file again"
                )
            values = significant_bits(stored, dataset)
        yield file, index, values


@contextlib.contextmanager
def told(path: Path, what: str) -> Iterator[None]:
    """Whatever goes wrong in the block, as an InputError that begins with the path."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except BaseException as error:  # pydicom and its plugins raise whatever their parsers meet
        # a panic of a plugin in Rust is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise _undecodable(path, what, error) from error


def _read(path: Path) -> Dataset:
    """The elements of `_TAGS`, with the pixels still encoded."""
    import pydicom

    data = read_file(path, MAX_FILE_BYTES, "a DICOM file", "split it")
    if data[128:132] != b"DICM":
        raise InputError(
            f"{path}: lacks the mark of a DICOM file (DICM at byte 128), expected one: export it again"
        )
    try:
        meta, start = meta_elements(data)
    except struct.error:
        meta, start = {}, 0
    syntax = transfer_syntax(meta)
    if not syntax:
        raise InputError(
            f"{path}: does not say its transfer syntax, so its bytes could mean anything: export it again"
        )
    if syntax == _DEFLATED:
        _check_inflated(data[start:], path)
    try:
        return pydicom.dcmread(io.BytesIO(data), specific_tags=list(_TAGS))
    except Exception as error:  # see read_dicom
        raise _undecodable(path, "header", error) from error


def _check_inflated(deflated: bytes, path: Path) -> None:
    """Raise InputError where a deflated file would grow beyond the limit, without keeping what it gives."""
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        while deflated and not inflater.eof:
            total += len(inflater.decompress(deflated, 2**20))
            deflated = inflater.unconsumed_tail
            if total > MAX_FILE_BYTES:
                raise InputError(f"{path}: inflates beyond {MAX_FILE_BYTES} bytes, expected less: split it")
    except zlib.error as error:
        raise _undecodable(path, "deflated data", error) from error


def _to_pixels(
    stored: npt.NDArray[Any], dataset: Dataset, index: int, span: Span | None
) -> npt.NDArray[np.uint8]:
    """One frame as decoded, (H, W) or (H, W, 3), to uint8 by the rule of this module."""
    colours = dataset.PhotometricInterpretation
    if colours in GRAYS:
        return gray_to_uint8(stored, dataset, index, span)
    if colours == "PALETTE COLOR":
        return palette_to_uint8(stored, dataset)
    return np.ascontiguousarray(to_uint8(stored))


def _undecodable(path: Path, what: str, error: BaseException) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(
        f"{path}: {what} cannot be decoded ({reason}): copy or export the file again, or convert it"
    )
