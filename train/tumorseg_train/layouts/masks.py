"""Masks by colour: which pixels of a mask file are tumour, and what is wrong with the file.

A mask is read as the file stores it, alpha left out. Where nothing is declared, black is the background and
one other colour the tumour; anything else is refused until the tumour's colour is named:

    tumour          '#ff0000' or red, 255 or another gray value, several with commas, or `any`: all but black
    soft_threshold  1 to 255 for masks with soft edges (JPEG, smoothing): tumour from this value on; with the
                    tumour 0 or black, below it

A mask of which the tumour covers half of the image's border or more is probably inverted.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.errors import InputError

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
BoolArray = npt.NDArray[np.bool_]

ANY = "any"
NAMES = {
    "black": 0x000000, "white": 0xFFFFFF, "red": 0xFF0000, "green": 0x00FF00, "blue": 0x0000FF,
    "yellow": 0xFFFF00, "magenta": 0xFF00FF, "cyan": 0x00FFFF,
}  # fmt: skip
MOST_COLOURS = 32  # of a mask without soft edges
BORDER = 0.5  # share of the border's pixels from which on a mask is probably inverted; real ones have 0.03
_GRAY = 0x010101
_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class MaskRule:
    """How masks are read. tumour: as declared, '' for the one colour beside black. soft_threshold: 0: none.

    Raises InputError for a tumour that is no colour.
    """

    tumour: str = ""
    soft_threshold: int = 0

    def __post_init__(self) -> None:
        _wanted(self.tumour)
        if not 0 <= self.soft_threshold <= 255:
            raise InputError(
                f"soft_threshold is {self.soft_threshold}, expected 1 to 255, or 0 for masks without soft "
                "edges: correct it"
            )
        if self.soft_threshold and self.tumour not in ("", ANY, "0", "black", "255", "white"):
            raise InputError(
                f"soft_threshold goes with gray masks, got also tumour {self.tumour!r}, expected none, "
                "or 0 where the tumour is dark: save coloured masks as PNG"
            )


def read_tumour(pixels: Pixels, rule: MaskRule) -> BoolArray:
    """Pixels of a mask file, integers (H, W) or (H, W, 3) RGB -> bool (H, W).

    Raises InputError, without the file's name: 'has 3 colours (...), expected ...: ...'.
    """
    if rule.soft_threshold:
        return _soft(pixels, rule)
    packed, coloured = _packed(pixels)
    found, counts = np.unique(packed, return_counts=True)
    colours = [int(colour) for colour in found]
    if len(colours) > MOST_COLOURS or (not rule.tumour and not _clear(colours)):
        raise InputError(_refusal(colours, [int(n) for n in counts], packed, coloured))
    if rule.tumour in ("", ANY):
        return np.asarray(packed != 0)
    wanted = [
        value * _GRAY if gray and pixels.dtype == np.uint8 else value for value, gray in _wanted(rule.tumour)
    ]
    named_by_value = [value for value, gray in _wanted(rule.tumour) if gray and value not in (0, 255)]
    if coloured and named_by_value:
        raise InputError(
            f"is coloured ({_listed(colours, coloured)}), but the tumour is the gray value "
            f"{named_by_value[0]}, expected a colour: name it as --tumour '#rrggbb'"
        )
    return np.asarray(np.isin(packed, wanted))


def border_share(tumour: BoolArray) -> float:
    """Share of the pixels at the image's border that are tumour; bool (H, W)."""
    edge = (tumour[0], tumour[-1], tumour[1:-1, 0], tumour[1:-1, -1])
    return float(np.concatenate(edge).mean())


def _soft(pixels: Pixels, rule: MaskRule) -> BoolArray:
    if pixels.dtype != np.uint8:
        raise InputError(
            f"has {pixels.dtype.itemsize * 8} bits, expected 8 with a soft threshold: save it as 8-bit PNG"
        )
    gray = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    dark = rule.tumour in ("0", "black")
    return np.asarray(gray < rule.soft_threshold if dark else gray >= rule.soft_threshold)


def _packed(pixels: Pixels) -> tuple[npt.NDArray[np.uint32], bool]:
    """One number for each pixel's colour, 0xRRGGBB or a 16-bit value; and whether there is true colour."""
    if pixels.ndim == 2:
        gray = pixels.astype(np.uint32)
        return (gray * np.uint32(_GRAY) if pixels.dtype == np.uint8 else gray), False
    if pixels.dtype != np.uint8:
        raise InputError("has 16-bit colour, expected 8 bits or gray: save it as 8-bit PNG")
    red, green, blue = (pixels[:, :, i].astype(np.uint32) for i in range(3))
    coloured = not (np.array_equal(red, green) and np.array_equal(red, blue))
    packed = (red << 16 | green << 8 | blue).astype(np.uint32)
    return packed, coloured


def _clear(colours: list[int]) -> bool:
    return len(colours) == 1 or (len(colours) == 2 and colours[0] == 0)


def _refusal(colours: list[int], counts: list[int], packed: npt.NDArray[np.uint32], coloured: bool) -> str:
    kind = "colours" if coloured else "values"
    got = f"has {len(colours)} {kind} ({_listed(colours, coloured)})"
    if len(colours) > MOST_COLOURS or (not coloured and colours[0] == 0 and len(colours) > 8):
        return f"{got}, expected 0 and one other: save it as PNG without smoothing (not JPEG)" + (
            "" if coloured else ", or declare --soft-threshold 128 (tumour from there on)"
        )
    edges = np.concatenate((packed[0], packed[-1], packed[:, 0], packed[:, -1]))
    outer, most = np.unique(edges, return_counts=True)
    outside = int(outer[most.argmax()])
    likely = max((n, colour) for colour, n in zip(colours, counts, strict=True) if colour != outside)[1]
    return (
        f"{got}, expected black and one other: name the tumour's, such as --tumour "
        f"'{_name(likely, coloured)}' ({_name(outside, coloured)} is at the border), or several with commas"
    )


def _listed(colours: list[int], coloured: bool) -> str:
    texts = [_name(colour, coloured) for colour in colours[:_SHOWN]]
    return ", ".join(texts) + (", ..." if len(colours) > _SHOWN else "")


def _name(colour: int, coloured: bool) -> str:
    """A packed colour as `--tumour` takes it."""
    if coloured:
        return f"#{colour:06x}"
    return str(colour if colour % _GRAY else colour // _GRAY)


def _wanted(tumour: str) -> list[tuple[int, bool]]:
    """(colour or value, whether it is a gray value) of each that is named; raises InputError."""
    found = []
    for text in tumour.split(",") if tumour not in ("", ANY) else ():
        name = text.strip().casefold()
        if name in NAMES:
            found.append((NAMES[name], False))
        elif re.fullmatch("#[0-9a-f]{6}", name):
            found.append((int(name[1:], 16), False))
        elif name.isascii() and name.isdigit() and int(name) <= 65535:
            found.append((int(name), True))
        else:
            raise InputError(
                f"tumour is {tumour!r}, expected a colour such as '#ff0000' or {', '.join(NAMES)}, a gray "
                f"value such as 255, several of them with commas, or {ANY} (all but black): correct it"
            )
    return found


PLAIN = MaskRule()  # where nothing is declared
