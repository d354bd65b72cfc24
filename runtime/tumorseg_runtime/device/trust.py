"""Whose device folder is believed: root's and one's own, where nobody else may write.

What lies there decides which network serves (`ranking.json`) and is code for the GPU (engines). It is bound
to its bundle and device by their hashes, but not signed: the key would lie on the same disk. So who may write
into it is what is checked, as ssh does with its own files.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tumorseg_runtime.core.errors import BundleError

PRIVATE = 0o755  # of the folders that tumorseg makes, whatever the umask
_OTHERS, _GROUP = stat.S_IWOTH, stat.S_IWGRP


def require_trusted(folder: Path, *files: Path) -> None:
    """Raise BundleError unless a folder, and these files in it, are root's or this user's, and nobody else
    may change them. What does not exist is not looked at."""
    for path, forbidden in ((folder, _OTHERS | _GROUP), *((file, _OTHERS) for file in files)):
        try:
            facts = path.stat() if path == folder else path.lstat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BundleError(
                f"{path}: cannot be looked at ({error.strerror or error}): check its rights"
            ) from error
        if facts.st_uid not in (0, os.geteuid()):
            raise BundleError(
                f"{path}: belongs to user {facts.st_uid}, expected root or user {os.geteuid()}: "
                "chown it, or choose another device folder"
            )
        if stat.S_ISLNK(facts.st_mode) or facts.st_mode & forbidden:
            raise BundleError(
                f"{path}: others may change it (mode {stat.S_IMODE(facts.st_mode):o}), expected its owner "
                "alone: chmod go-w, once you know what is in it, or choose another device folder"
            )
