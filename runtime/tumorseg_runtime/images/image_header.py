"""What the header of an image file says, whatever its kind."""

from __future__ import annotations

import dataclasses
import struct

from tumorseg_runtime.core.errors import InputError

_ORIENTATION, _SHORT = 274, 3
_EXIF_MARK = b"Exif\0\0"


@dataclasses.dataclass(frozen=True)
class ImageHeader:
    """What a header says. width, height: pixels as stored, before any rotation.

    bits: of one sample, as it is decoded. gray: one sample per pixel, beside an alpha channel. data: the
    file as it is given to OpenCV. orientation: 1 to 8 as in EXIF, to be applied after decoding; None where
    OpenCV does that. doubt: why OpenCV may not decode the file although it is whole; empty for none.
    """

    kind: str
    width: int
    height: int
    bits: int
    gray: bool
    data: bytes
    orientation: int | None = None
    doubt: str = ""


def several_images(name: str, what: str) -> InputError:
    """The error of a file that holds more than one image."""
    return InputError(f"{name}: holds {what}, expected a single image: split it, one file per image")


def to_be_converted(name: str, what: str) -> InputError:
    """The error of a file that OpenCV gets wrong or does not decode."""
    return InputError(f"{name}: is {what}, which OpenCV decodes wrongly or not at all: convert it to PNG")


def exif_orientation(exif: bytes) -> int:
    """Orientation 1 to 8 in a block of EXIF; 1 where it says none. Raises struct.error if it is cut off."""
    exif = exif.removeprefix(_EXIF_MARK)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    (directory,) = struct.unpack_from(order + "I", exif, 4)
    (count,) = struct.unpack_from(order + "H", exif, directory)
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, field, _, value = struct.unpack_from(order + "HHIH", exif, entry)
        if (tag, field) == (_ORIENTATION, _SHORT) and 1 <= value <= 8:
            return int(value)
    return 1
