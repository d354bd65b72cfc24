"""A folder that appears whole or not at all.

Everything is written into `<out>.part-<pid>` beside `out`, which is renamed when it is complete. A bundle
that stood at `out` is renamed to `<out>.old-<pid>` in that moment and deleted after it; what a killed
export leaves behind is put right by the next one. A lock, `.<out>.lock`, keeps two exports apart.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tumorseg_runtime.bundle.bundle import INDEX, Bundle
from tumorseg_runtime.bundle.seal import BESIDE
from tumorseg_runtime.core.errors import BundleError, InputError
from tumorseg_runtime.core.files import locked, move, publish

PART, OLD = "part", "old"
# What the operating system says when it will not store the bytes, and not when a program is wrong.
_REFUSALS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
    errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG,
}  # fmt: skip


@contextlib.contextmanager
def new_bundle_folder(out: Path, log: Callable[[str], None]) -> Iterator[Path]:
    """Yield an empty folder that becomes `out` if the block ends well, and vanishes if it does not.

    log: called with one line for each left-over of a dead export that was removed.
    Raises InputError where `out` is something else than a bundle, where another export is writing it, or
    where the disk refuses (full, read-only, no right).
    """
    out = out.resolve()
    part, old = (out.with_name(f"{out.name}.{kind}-{os.getpid()}") for kind in (PART, OLD))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with locked(out.with_name(f".{out.name}.lock"), out):
            _put_right(out, log)
            check_replaceable(out)
            part.mkdir()
            try:
                yield part
                check_replaceable(out)
                publish(part, out, aside=old if (out / INDEX).exists() else None)
            except BaseException:  # KeyboardInterrupt, too: nothing half-made stays
                shutil.rmtree(part, ignore_errors=True)
                raise
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        raise InputError(
            f"{out}: cannot be written ({error.strerror or error}), nothing was changed there: "
            "free space or rights on that disk, or choose another folder"
        ) from error


def check_replaceable(out: Path) -> None:
    """Pass if nothing is at `out`, or an empty folder, or a bundle and no file beyond it; else InputError."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    advice = "choose another folder, or delete this one yourself"
    try:
        bundle = Bundle.read_index(out)
    except BundleError as error:
        raise InputError(f"{out}: exists and is no bundle ({error}): {advice}") from error
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    if foreign := sorted(found - set(bundle.files) - {INDEX, *BESIDE}):
        raise InputError(f"{out}: holds more than a bundle ({', '.join(foreign)}): {advice}")


def _put_right(out: Path, log: Callable[[str], None]) -> None:
    """Remove what dead exports to `out` left, and put back a bundle that one had moved; needs the lock."""
    pattern = re.compile(re.escape(out.name) + rf"\.({PART}|{OLD})-(\d+)")
    for path in sorted(out.parent.iterdir()):
        match = pattern.fullmatch(path.name)
        if match is None:
            continue
        if match[1] == OLD and not out.exists():
            move(path, out)
            log(f"put back the bundle that a killed export had moved to {path.name}")
        else:
            shutil.rmtree(path)
            log(f"removed {path.name}, the left-over of a killed export")
