"""A converter in a process of its own: it prints, may crash, and gives its memory back when it ends."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tumorseg_runtime.core.errors import CheckFailedError

LIMIT_S = 900


def convert(name: str, command: Sequence[str], folder: Path, results: Sequence[str]) -> None:
    """Run a converter with `folder` as its working folder, where it must leave the files `results`.

    Raises CheckFailedError where it fails, hangs, or leaves a file out: with the last line that it printed.
    """
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CheckFailedError(
            f"{name} ran for {LIMIT_S} s, expected an end: leave out its target, or use a faster machine"
        ) from error
    absent = [file for file in results if not (folder / file).is_file() or not (folder / file).stat().st_size]
    if done.returncode != 0 or absent:
        lines = [line for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]
        raise CheckFailedError(
            f"{name} ended with status {done.returncode} and without {', '.join(absent) or 'success'} "
            f"({lines[-1].strip() if lines else 'it printed nothing'}), expected {', '.join(results)}: "
            "leave out its target, or free memory and disk"
        )
