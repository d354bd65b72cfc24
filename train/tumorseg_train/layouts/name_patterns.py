"""Patterns of names: `*` stands for any text, `#` for a number that is compared by its value.

Names are compared in Unicode's normal form C: `Übung` is one name, whether a Mac or a PC wrote it. Where the
exact name is not there, capitals do not count.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from tumorseg_runtime.core.errors import InputError

Key = tuple[str, ...]
_WILD = re.compile(r"([*#])")


def parse_pairing(text: str) -> tuple[str, tuple[str, ...]]:
    """'*=*|*_mask' -> the pattern of an image's stem and those of its masks' stems; raises InputError."""
    image, equals, masks = text.partition("=")
    found = image.strip(), tuple(pattern.strip() for pattern in masks.split("|"))
    wild = [_WILD.findall(pattern) for pattern in (found[0], *found[1])]
    if not equals or not wild[0] or any(each != wild[0] for each in wild):
        raise InputError(
            f"pairing is {text!r}, expected IMAGE=MASK, names without suffix in which * stands for the same "
            "text and # for the same number, such as '*=*_seg' or 'image_#=mask_#': correct it"
        )
    return found


def key_of(pattern: str, stem: str, *, numbered: bool = False) -> Key | None:
    """What `*` and `#` stand for in a stem, in normal form C; None where the pattern does not fit.

    numbered: a pattern that ends in a word also fits that word with a number: `*_mask` fits `1_mask_2`.
    """
    match = _compiled(pattern, numbered).fullmatch(unicodedata.normalize("NFC", stem))
    if match is None:
        return None
    kinds = _WILD.findall(pattern)
    return tuple(
        str(int(text)) if kind == "#" else text for kind, text in zip(kinds, match.groups(), strict=True)
    )


def folded(key: Key) -> Key:
    """A key in which capitals do not count."""
    return tuple(unicodedata.normalize("NFC", text.casefold()) for text in key)


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str, numbered: bool) -> re.Pattern[str]:
    parts = [
        {"*": "(.+)", "#": r"(\d+)"}.get(part) or re.escape(part)
        for part in _WILD.split(unicodedata.normalize("NFC", pattern))
        if part
    ]
    number = r"(?:_\d+)?" if numbered and pattern[-1:].isalpha() else ""
    return re.compile("".join(parts) + number, re.IGNORECASE)
