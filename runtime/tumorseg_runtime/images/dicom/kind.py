"""What a DICOM file is, told from its first bytes and without pydicom.

A study's folder holds more than images: reports, presentation states, segmentations, doses. Some of those
hold pixels, too, which are no picture of a patient.
"""

from __future__ import annotations

import struct
from pathlib import Path

_START, _FIRST_BYTES = 132, 16384  # after preamble and mark; what is read of a file
_LONG = (b"OB", b"UN", b"OW", b"SQ", b"UT")  # two reserved bytes, then a longer length
_IMPLICIT, _BIG_ENDIAN, _DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
_SYNTAX, _CLASS, _MODALITY = 0x00020010, 0x00020002, 0x00080060
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_CLASSES = (  # beginnings of SOP class UIDs behind that of storage
    ("88.59", "KO"), ("88.", "SR"), ("11.", "PR"), ("66", "SEG"), ("30", "parametric map"), ("67", "RWV"),
    ("68.", "surface scan"), ("481.2", "RTDOSE"), ("481.3", "RTSTRUCT"), ("481.5", "RTPLAN"),
    ("481.8", "RTPLAN"), ("481.4", "RTRECORD"), ("481.6", "RTRECORD"), ("481.7", "RTRECORD"),
    ("9.", "waveform"), ("104.", "document"), ("4.2", "MR spectroscopy"), ("90.1", "content assessment"),
)  # fmt: skip
_MODALITIES = {
    "SR", "PR", "SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "RTRECORD", "KO", "REG", "FID", "RWV", "DOC", "PLAN",
}  # fmt: skip
_DIRECTORY = "1.2.840.10008.1.3.10"


def not_an_image(path: Path) -> str | None:
    """What a DICOM file is that is no image, by its SOP class or modality, in short: 'SR', 'KO', ...

    None for an image, and where it cannot be read or told: whoever reads it then says what is wrong.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_FIRST_BYTES)
        meta, start = meta_elements(data)
    except (OSError, struct.error):
        return None
    sop_class, syntax = _text(meta, _CLASS), _text(meta, _SYNTAX)
    modality = ""
    if syntax not in (_BIG_ENDIAN, _DEFLATED):
        modality = _text(_elements(data, start, 0x0008, explicit=syntax != _IMPLICIT)[0], _MODALITY)
    return kind_of(sop_class, modality)


def kind_of(sop_class: str, modality: str) -> str | None:
    """What an object of this SOP class UID and modality is that is no image; None for an image."""
    if sop_class == _DIRECTORY:
        return "DICOMDIR"
    for beginning, name in _CLASSES:
        if sop_class.startswith(_STORAGE + beginning):
            return name
    return modality if modality in _MODALITIES else None


def meta_elements(data: bytes) -> tuple[dict[int, bytes], int]:
    """Values of the file meta information by tag, and where it ends; raises struct.error if it is cut off."""
    return _elements(data, _START, 0x0002, explicit=True)


def transfer_syntax(meta: dict[int, bytes]) -> str:
    """Its UID, empty where it is missing."""
    return _text(meta, _SYNTAX)


def _elements(data: bytes, position: int, group: int, *, explicit: bool) -> tuple[dict[int, bytes], int]:
    """Values of a group's elements, little endian, up to the first of undefined length or another group."""
    found: dict[int, bytes] = {}
    mark = struct.pack("<H", group)
    while data[position : position + 2] == mark:
        (element,) = struct.unpack_from("<2xH", data, position)
        if not explicit:
            (length,) = struct.unpack_from("<4xI", data, position)
        else:
            form, length = struct.unpack_from("<4x2sH", data, position)
            if form in _LONG:
                position += 4
                (length,) = struct.unpack_from("<4xI", data, position)
        position += 8
        if length == 0xFFFFFFFF:
            break
        found[group << 16 | element] = data[position : position + length]
        position += length
    return found, position


def _text(elements: dict[int, bytes], tag: int) -> str:
    return elements.get(tag, b"").decode("ascii", "replace").strip("\0 ")
