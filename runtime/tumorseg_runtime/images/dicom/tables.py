"""Look-up tables of a DICOM file: modality, VOI and palette, read from their bytes (PS3.3 C.11, C.7.6.3).

pydicom's own are not used: they are wrong for 8-bit entries in 16-bit words, for a negative first value
written as an unsigned one, and for big-endian files. The descriptor is held against the data: entries are
bytes where there are as many bytes as entries, and 16-bit words where there are twice as many; a table that
says 16 bits (the width of a word), or fewer than it needs, has as many bits as its largest entry needs, but
at least 8.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

UInt16Array = npt.NDArray[np.uint16]

_MOST_ENTRIES, _WORD_BITS, _SIGN = 2**16, 16, 2**15
_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2


@dataclasses.dataclass(frozen=True, eq=False)
class LookUpTable:
    """entries: uint16 (n,). first: the value that gives the first; smaller values give it, too, and larger
    ones than first + n - 1 the last. bits: of an entry."""

    entries: UInt16Array
    first: int
    bits: int

    def look_up(self, values: npt.NDArray[Any]) -> UInt16Array:
        """Entries of values of any shape, rounded half to even."""
        places = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1).astype(np.int64)
        return np.asarray(self.entries[places], np.uint16)


def gray_table(item: Dataset, *, signed: bool) -> LookUpTable:
    """A modality or VOI table; signed: whether the values that it takes can be negative.

    Raises InputError where descriptor and data do not fit.
    """
    return _table(item, "LUTDescriptor", "LUTData", signed=signed)


def palette(dataset: Dataset) -> tuple[list[LookUpTable], int]:
    """Tables of red, green and blue, and the largest possible entry of all three."""
    signed = dataset.get("PixelRepresentation") == 1
    tables = []
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTable"
        data = f"Segmented{name}Data" if f"{name}Data" not in dataset else f"{name}Data"
        tables.append(_table(dataset, f"{name}Descriptor", data, signed=signed))
    return tables, 2 ** max(table.bits for table in tables) - 1


def _table(item: Dataset, descriptor: str, data: str, *, signed: bool) -> LookUpTable:
    if descriptor not in item or data not in item:
        raise InputError(f"lacks {descriptor} or {data}, expected both: export it again")
    little = item.original_encoding[1] is not False
    form = _words(item[descriptor].value, little)
    if len(form) != 3:
        raise InputError(f"has {len(form)} numbers in {descriptor}, expected 3: export it again")
    count, first, bits = (int(number) for number in form)
    count = count or _MOST_ENTRIES
    if signed and first >= _SIGN:
        first -= 2 * _SIGN
    words = _words(item[data].value, little)
    packed = words if little or item[data].VR != "OB" else words.byteswap()
    if data.startswith("Segmented"):
        entries = _expanded(words, packed.view(np.uint8), count, bits)
    elif len(words) == count:
        entries = words
    elif len(words) == (count + 1) // 2:  # two bytes in a word, the lower one first
        entries = packed.view(np.uint8)[:count].astype(np.uint16)
    else:
        raise InputError(
            f"has {2 * len(words)} bytes in {data}, expected {count} or {2 * count}, as {descriptor} says: "
            "export it again"
        )
    return LookUpTable(entries, first, _bits(entries, bits))


def _words(value: Any, little: bool) -> UInt16Array:
    """16-bit words of an element, as bytes or as numbers."""
    if isinstance(value, bytes):
        value += bytes(len(value) % 2)
        return np.frombuffer(value, "<u2" if little else ">u2").astype("<u2")
    numbers = [value] if isinstance(value, int) else value
    return np.array([int(number) & 0xFFFF for number in numbers], "<u2")


def _bits(entries: UInt16Array, said: int) -> int:
    needed = max(8, int(entries.max()).bit_length())
    return said if needed <= said < _WORD_BITS else needed


def _expanded(words: UInt16Array, byte_wise: npt.NDArray[np.uint8], count: int, bits: int) -> UInt16Array:
    """Entries of a segmented table (PS3.3 C.7.9.2), whose numbers are bytes where an entry has 8 bits."""
    if bits == 8:
        try:
            return np.array(_segments(byte_wise.tolist(), count, 4), np.uint16)
        except (IndexError, ValueError):
            pass  # in words, as several writers do
    try:
        return np.array(_segments(words.tolist(), count, 2), np.uint16)
    except (IndexError, ValueError) as error:
        raise InputError(
            f"has a segmented palette that does not give its {count} entries: export it again"
        ) from error


def _segments(numbers: Sequence[int], count: int, offset_numbers: int) -> list[int]:
    """Entries of all segments; raises ValueError or IndexError where they are not `count`."""
    entries: list[int] = []
    position = 0
    while len(entries) < count:
        if numbers[position] == _INDIRECT:
            parts = numbers[position + 2 : position + 2 + offset_numbers]
            base = 2 ** (32 // offset_numbers)
            at = sum(part * base**place for place, part in enumerate(parts)) * offset_numbers // 4
            for _ in range(numbers[position + 1]):
                at = _segment(numbers, at, entries)
            position += 2 + offset_numbers
        else:
            position = _segment(numbers, position, entries)
    if len(entries) != count:
        raise ValueError(len(entries))
    return entries


def _segment(numbers: Sequence[int], position: int, entries: list[int]) -> int:
    """Add a discrete or linear segment to the entries; where the next one begins."""
    kind, length = numbers[position], numbers[position + 1]
    if len(entries) + length > _MOST_ENTRIES:
        raise ValueError(length)
    if kind == _DISCRETE:
        found = numbers[position + 2 : position + 2 + length]
        if len(found) != length:
            raise IndexError(position)
        entries += found
        return position + 2 + length
    if kind != _LINEAR:
        raise ValueError(kind)
    start, end = entries[-1], numbers[position + 2]
    entries += [round(start + (end - start) * step / length) for step in range(1, length + 1)]
    return position + 3
