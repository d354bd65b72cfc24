"""Lines that libjpeg and libpng write to the process's standard error by themselves, told as warnings.

They bypass Python and OpenCV's log level. A command owns its standard error and may turn it aside while one
file is decoded; a library does not, since other threads write there, too, and children inherit it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

_ERROR = 2  # file descriptor
_DAMAGE = ("Corrupt JPEG data", "Premature end of JPEG file", "Invalid JPEG file structure")
_DECODERS = (*_DAMAGE, "libpng ", "TIFF", "Unsupported marker", "Warning: ", "[INFO]", "[WARNING]", "[ERROR]")
_owned = False


@contextlib.contextmanager
def owned() -> Iterator[None]:
    """Standard error belongs to this process's command: `caught` may turn it aside in the block."""
    global _owned
    before, _owned = _owned, True
    try:
        yield
    finally:
        _owned = before


@contextlib.contextmanager
def caught() -> Iterator[list[str]]:
    """The lines that tell of damage, filled in at the block's end; the decoders' other lines are dropped, and
    what anybody else wrote is passed on. Nothing is turned aside unless standard error is `owned`."""
    damage: list[str] = []
    if not _owned:
        yield damage
        return
    with tempfile.TemporaryFile() as aside:
        sys.stderr.flush()
        kept = os.dup(_ERROR)
        os.dup2(aside.fileno(), _ERROR)
        try:
            yield damage
        finally:
            sys.stderr.flush()
            os.dup2(kept, _ERROR)
            os.close(kept)
            aside.seek(0)
            for line in aside.read().decode(errors="replace").splitlines(keepends=True):
                if line.startswith(_DAMAGE):
                    damage.append(f"may be damaged, libjpeg says: {line.strip()}")
                elif not line.startswith(_DECODERS):
                    os.write(_ERROR, line.encode())
