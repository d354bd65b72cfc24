"""The header of a TIFF or BigTIFF file: what OpenCV gets right, and what it would get wrong."""

from __future__ import annotations

import struct

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.image_header import ImageHeader, several_images, to_be_converted

# first bytes -> byte order, then the forms of a directory's count, an entry, and an offset
TIFF_ORDERS = {
    b"II*\0": ("<", "H", "HHI", "I"), b"MM\0*": (">", "H", "HHI", "I"),
    b"II+\0": ("<", "Q", "HHQ", "Q"), b"MM\0+": (">", "Q", "HHQ", "Q"),
}  # fmt: skip
_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # field types of the tags that are read here
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_PHOTOMETRIC = {0: "gray", 1: "gray", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr"}
_WIDE = ((_BLACK_IS_ZERO, 1), (_RGB, 3), (_RGB, 4))  # photometric interpretation, samples, above 8 bits
_SEPARATE_ALPHA = 2
_BIG = 8  # bytes of a BigTIFF's offset


def read_tiff(data: bytes, name: str) -> ImageHeader:
    """Header of a (Big)TIFF file, with a separate alpha channel declared as one that is not multiplied in.

    Raises InputError for what OpenCV would get wrong, struct.error or KeyError where it is damaged.
    """
    order, count_form, entry_form, offset_form = TIFF_ORDERS[data[:4]]
    word = struct.calcsize(order + offset_form)
    if word == _BIG and struct.unpack_from(order + "HH", data, 4) != (_BIG, 0):
        raise KeyError(data[4:8])
    (directory,) = struct.unpack_from(order + offset_form, data, 8 if word == _BIG else 4)
    (count,) = struct.unpack_from(order + count_form, data, directory)
    entries = directory + struct.calcsize(order + count_form)
    head = struct.calcsize(order + entry_form)
    end = entries + (head + word) * count
    if end > len(data):
        raise IndexError(end)
    tags: dict[int, tuple[int, ...]] = {}
    alpha_at = None
    for entry in range(entries, end, head + word):
        tag, field, number = struct.unpack_from(order + entry_form, data, entry)
        if field not in _TYPES or number > 16:
            continue
        form = f"{order}{number}{_TYPES[field]}"
        at = entry + head
        if struct.calcsize(form) > word:
            (at,) = struct.unpack_from(order + offset_form, data, at)
        tags[tag] = struct.unpack_from(form, data, at)
        if tag == 338:
            alpha_at = at
    if struct.unpack_from(order + offset_form, data, end)[0]:
        raise several_images(name, "more than one image")
    (width,), (height,), (photometric,) = tags[256], tags[257], tags[262]
    all_bits = tags.get(258, (1,))
    (samples,), (planes,) = tags.get(277, (1,)), tags.get(284, (1,))
    gray = photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
    bits = max(all_bits)
    colour = _PHOTOMETRIC.get(photometric, f"photometric interpretation {photometric}")
    wide = bits > 8 and (
        bits not in (16, 32, 64) or (photometric, samples) not in _WIDE or (samples > 1 and planes != 1)
    )
    if wide or len(set(all_bits)) > 1 or photometric not in _PHOTOMETRIC:
        raise to_be_converted(
            name,
            f"a TIFF with {samples} samples of {'/'.join(map(str, sorted(set(all_bits))))} bits, "
            f"{colour}{', 0 is white' if photometric == _WHITE_IS_ZERO else ''}"
            f"{', in separate planes' if planes != 1 else ''}",
        )
    doubt = f"is a TIFF in tiles of {tags[322][0]}x{tags[323][0]}" if 322 in tags else ""
    if alpha_at is not None and _SEPARATE_ALPHA in tags[338]:
        if len(tags[338]) > 1:
            raise InputError(
                f"{name}: is a TIFF with {len(tags[338])} extra channels, expected one: convert it to PNG"
            )
        data = data[:alpha_at] + b"\0\0" + data[alpha_at + 2 :]
    return ImageHeader("tiff", width, height, bits, gray, data, doubt=doubt)
