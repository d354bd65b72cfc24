"""Text that may hold what others wrote (names of files, values of records), made fit for a terminal.

A newline in a name forges a line of ours, an escape sequence writes into the clipboard or the window's title,
a mark of direction shows `gpj.exe` as `exe.jpg`. Such characters are written as JSON writes them, `\\u001b`:
visible, one line, and JSON that passes here stays the same JSON.
"""

from __future__ import annotations

import re

# Controls (C0, DEL, C1), ends of line and marks of direction of Unicode, and halves of characters.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, *, keep: str = "") -> str:
    """The text with every character that a terminal takes for a command escaped; keep: those to leave."""
    return _UNFIT.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    return f"\\u{ord(character):04x}"
