"""DICOM files as frames (extra `dicom`: pydicom, and pylibjpeg for the compressed ones).

What becomes of the stored values:

- gray: rescale slope and intercept or modality table; then the first VOI table or window of the file, by
  its function (linear, linear exact, sigmoid), to 0..255. Without one: unsigned integers of at most 8 bits
  that are not rescaled are spread over 0..255 as they are; all others are windowed linearly from the
  frame's own minimum to its maximum, pixels of padding left out (they become 0), like plain images of more
  than 8 bits. Rounded half to even. MONOCHROME1 is inverted after that.
- colour (RGB, YBR_FULL, YBR_FULL_422, YBR_ICT, YBR_RCT): RGB; over 8 bits by minimum and maximum of the
  frame. PALETTE COLOR: RGB through its table.

Only the elements of `_TAGS` are ever read: patient data is not, so no message and no output can hold it
(text that is burned into the pixels is part of the image). Sizes are judged from the header before pixels
are decoded, and each compressed frame's own header against it.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.images.dicom.checks import check_stream
from tumorseg_runtime.images.dicom.lookup_tables import gray_to_uint8, group_of
from tumorseg_runtime.images.frame import Frame, Spacing
from tumorseg_runtime.images.header import MAX_PIXELS
from tumorseg_runtime.images.read import read_file, to_uint8

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_FILE_BYTES = 2**30
MAX_PIXELS_OF_ALL_FRAMES = 2_000_000_000  # frames are decoded one at a time; this bounds the work
_DEFLATED = "1.2.840.10008.1.2.1.99"
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_GRAYS = ("MONOCHROME1", "MONOCHROME2")
_CENTIMETRES, _TWO_DIMENSIONAL, _TISSUE = 3, 1, 1  # ultrasound regions: units, spatial format, data type
_TAGS = [
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows",
    "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter",
    "WindowWidth", "VOILUTFunction", "VOILUTSequence", "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData", "SegmentedBluePaletteColorLookupTableData", "PixelSpacing",
    "ImagerPixelSpacing", "SequenceOfUltrasoundRegions", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData",
]  # fmt: skip


def read_dicom(path: Path) -> Iterator[Frame]:
    """The frames of a DICOM file, decoded one at a time.

    Raises InputError, with the reason, where the file cannot be decoded rightly; BackendError without
    pydicom. The name of a frame is the path, with '[index]' where there are several.
    """
    try:
        from pydicom.pixels.utils import iter_pixels
    except ModuleNotFoundError as error:
        raise BackendError(
            f"{path}: is a DICOM file and {str(error.name).partition('.')[0]} is not installed, "
            "expected the extra 'dicom': pip install 'tumorseg[dicom]'"
        ) from error
    dataset = _read(path)
    count = _check_header(dataset, path)
    frames: Iterator[npt.NDArray[Any]] | None = None
    for index in range(count):
        try:
            if frames is None:
                _check_streams(dataset, count)
                frames = iter_pixels(dataset)
            stored = next(frames)
            pixels, spacings = _to_pixels(stored, dataset, index), _spacings(dataset, index)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except StopIteration:
            raise InputError(
                f"{path}: holds {index} frames, its header says {count}: copy or export the file again"
            ) from None
        except BaseException as error:  # pydicom and its plugins raise whatever their parsers meet
            # a panic of a plugin in Rust is no Exception
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise _undecodable(path, f"frame [{index}]", error) from error
        yield Frame(str(path) if count == 1 else f"{path}[{index}]", pixels, spacings, index, count)


def _read(path: Path) -> Dataset:
    """The elements of `_TAGS`, with the pixels still encoded."""
    import pydicom

    data = read_file(path, MAX_FILE_BYTES, "a DICOM file", "split it")
    if data[128:132] != b"DICM":
        raise InputError(
            f"{path}: lacks the mark of a DICOM file (DICM at byte 128), expected one: export it again"
        )
    try:
        syntax, start = _transfer_syntax(data)
    except (struct.error, UnicodeDecodeError):
        syntax, start = "", 0
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


def _transfer_syntax(data: bytes) -> tuple[str, int]:
    """Transfer syntax UID, empty where it is missing, and where the file meta information ends.

    Its elements are explicit VR, little endian: group, element, two letters, length, value.
    """
    syntax, position = "", 132
    while data[position : position + 2] == b"\x02\0":
        element, form, length = struct.unpack_from("<2xH2sH", data, position)
        position += 8
        if form in (b"OB", b"UN", b"OW", b"SQ", b"UT"):  # two reserved bytes, then a longer length
            (length,) = struct.unpack_from("<I", data, position)
            position += 4
        if element == 0x10:
            syntax = data[position : position + length].decode("ascii").strip("\0 ")
        position += length
    return syntax, position


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


def _check_header(dataset: Dataset, path: Path) -> int:
    """Number of frames; raises InputError for what cannot be an image, or is too large."""
    try:
        if "PixelData" not in dataset:
            raise InputError(f"{path}: holds no pixels, expected an image: leave it out")
        rows, columns, samples = (int(dataset[tag].value) for tag in ("Rows", "Columns", "SamplesPerPixel"))
        colours = str(dataset.PhotometricInterpretation)
        value = dataset.get("NumberOfFrames")
        count = 1 if value in (None, "") else int(value)
    except InputError:
        raise
    except Exception as error:  # a missing element, or a value that is no number
        raise _undecodable(path, "header", error) from error
    if rows < 1 or columns < 1 or count < 1:
        raise InputError(
            f"{path}: its header says {count} frames of {columns}x{rows} pixels, expected at least one each: "
            "copy or export the file again"
        )
    if rows * columns > MAX_PIXELS or rows * columns * count > MAX_PIXELS_OF_ALL_FRAMES:
        raise InputError(
            f"{path}: has {count} frames of {columns}x{rows} pixels, expected at most {MAX_PIXELS} in one "
            f"and {MAX_PIXELS_OF_ALL_FRAMES} in all: split or resize it"
        )
    if (colours, samples) not in [(c, 1) for c in (*_GRAYS, "PALETTE COLOR")] + [(c, 3) for c in _COLOURS]:
        raise InputError(
            f"{path}: is {colours} with {samples} samples per pixel, expected one of "
            f"{', '.join((*_GRAYS, 'PALETTE COLOR', *_COLOURS))}: convert it"
        )
    return count


def _check_streams(dataset: Dataset, count: int) -> None:
    """Raise InputError where a compressed frame's own header contradicts the file's."""
    from pydicom.encaps import generate_frames

    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        offsets = None
        if "ExtendedOffsetTable" in dataset:
            offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
        for stream in generate_frames(dataset.PixelData, number_of_frames=count, extended_offsets=offsets):
            check_stream(stream, dataset)


def _to_pixels(stored: npt.NDArray[Any], dataset: Dataset, index: int) -> npt.NDArray[np.uint8]:
    """One frame as decoded, (H, W) or (H, W, 3), to uint8 by the rule of this module."""
    colours = dataset.PhotometricInterpretation
    if colours in _GRAYS:
        gray = gray_to_uint8(stored, dataset, index)
        return 255 - gray if colours == "MONOCHROME1" else gray
    if colours == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        table = apply_color_lut(stored, dataset)
        if table.dtype == np.uint8:
            return np.ascontiguousarray(table[..., :3])
        return np.rint(table[..., :3] * (255 / 65535)).astype(np.uint8)
    return np.ascontiguousarray(to_uint8(stored))


def _spacings(dataset: Dataset, index: int) -> tuple[Spacing, ...]:
    """What the file says about the distance between pixels, the more direct statement first."""
    measures = group_of(dataset, index, "PixelMeasuresSequence")
    for holder, name in (
        (dataset, "PixelSpacing"),
        (measures, "PixelSpacing"),
        (dataset, "ImagerPixelSpacing"),
    ):
        if holder is not None and holder.get(name):
            row, column = (float(value) for value in holder[name].value)
            return (_checked(Spacing(row, column, name)),)
    regions = []
    for region in dataset.get("SequenceOfUltrasoundRegions") or ():
        units = (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection"))
        kind = (region.get("RegionSpatialFormat"), region.get("RegionDataType"))
        if units != (_CENTIMETRES, _CENTIMETRES) or kind != (_TWO_DIMENSIONAL, _TISSUE):
            continue
        left, top = int(region.RegionLocationMinX0), int(region.RegionLocationMinY0)
        right, bottom = int(region.RegionLocationMaxX1), int(region.RegionLocationMaxY1)
        if min(left, top) < 0 or right > dataset.Columns or bottom > dataset.Rows:  # one too far is common
            return ()  # the image was resized or cut after this was written: it says nothing about it now
        box = (left, top, right - left + 1, bottom - top + 1)
        row, column = (abs(10 * float(d)) for d in (region.PhysicalDeltaY, region.PhysicalDeltaX))  # cm
        regions.append(_checked(Spacing(row, column, "SequenceOfUltrasoundRegions", box)))
    return tuple(regions)


def _checked(spacing: Spacing) -> Spacing:
    if not all(0 < mm < 1e4 for mm in (spacing.row_mm, spacing.column_mm)):
        raise InputError(
            f"{spacing.source} is {spacing.row_mm}x{spacing.column_mm} mm, expected positive numbers: "
            "correct the file, or remove the attribute"
        )
    return spacing


def _undecodable(path: Path, what: str, error: BaseException) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(
        f"{path}: {what} cannot be decoded ({reason}): copy or export the file again, or convert it"
    )
