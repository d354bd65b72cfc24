"""`tumorseg` in processes that are forks of one which has loaded torch and Lightning: that takes seconds of a
core, and the tests of a broken-off training start five. The one that forks has only imported (an own process,
of `multiprocessing`): no threads, and nothing that a test has left.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO

LOADED = ["tumorseg_train.commands.train", "tumorseg_train.training.train"]


@contextlib.contextmanager
def tumorseg(folder: Path, *words: str) -> Iterator[tuple[BaseProcess, IO[str]]]:
    """A process that runs the command, and its standard error; at the end of the block it is waited for."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    pipe = folder / "stderr"
    os.mkfifo(pipe)
    process = context.Process(target=_run, args=(words, pipe))
    process.start()
    with pipe.open(encoding="utf-8") as stderr:
        pipe.unlink()
        yield process, stderr
    process.join()


def _run(words: tuple[str, ...], pipe: Path) -> None:
    from tumorseg_runtime.cli.main import main

    with pipe.open("wb") as stream:
        os.dup2(stream.fileno(), 2)
    sys.argv[:] = ["tumorseg", *words]
    main()
