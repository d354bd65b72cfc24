"""What commands say: the one place through which every line reaches standard output or standard error.

Lines hold names of files, values of records and messages of libraries; `tumorseg_runtime.core.text` takes
from them what a terminal would obey. A standard output that takes no more (a full disk, a closed pipe) is an
error of one line; a standard error that takes no more is told nothing further, and the exit status still
speaks.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.text import printable

OUTPUT, ERRORS = 1, 2  # descriptors
ERASE = "\r\x1b[K"  # the line on which a bar stands
_bars: list[str] = []  # that stand on the last line of the terminal; no line may be written behind one


def say(line: str, *, err: bool = False) -> None:
    """One line; what would end it stands escaped. err: on standard error.

    Raises InputError where standard output takes it not.
    """
    _write(printable(line, keep="\t"), err=err, nl=True)


def say_text(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Several lines of our own making, such as a table or JSON. Raises InputError as `say`."""
    _write(printable(text, keep="\t\n"), err=err, nl=nl)


@contextlib.contextmanager
def bar_on_terminal(label: str) -> Iterator[None]:
    """Inside the block a bar stands on standard error, a terminal: each line erases it, its next step draws
    it again."""
    _bars.append(label)
    try:
        yield
    finally:
        _bars.remove(label)


def _write(text: str, *, err: bool, nl: bool) -> None:
    if _bars:
        with contextlib.suppress(OSError, ValueError):
            _echo(ERASE, err=True, nl=False)
    if err:
        with contextlib.suppress(OSError, ValueError):  # ValueError: the file is closed
            _echo(text, err=True, nl=nl)
            return
        silence(ERRORS)
        return
    if sys.stdout is None:
        raise no_output("it is closed")
    try:
        _echo(text, err=False, nl=nl)
    except OSError as error:
        raise no_output(error.strerror or str(error)) from error


def _echo(text: str, *, err: bool, nl: bool) -> None:
    """By click, which also serves a terminal without UTF-8; by Python on a machine that lacks it, on which
    `tumorseg_benchmarks.gpu_evidence` runs."""
    if importlib.util.find_spec("click") is None:
        print(text, end="\n" if nl else "", file=sys.stderr if err else sys.stdout, flush=True)
        return
    import click

    click.echo(text, err=err, nl=nl)


def no_output(why: str) -> InputError:
    """The error of a standard output that takes nothing, which is given nothing any more."""
    silence(OUTPUT)
    return InputError(
        f"standard output cannot be written ({why}), expected one that takes the result: send it where there "
        "is room; files that were written are whole"
    )


def silence(descriptor: int) -> None:
    """Lead a standard stream into nothing, so that what Python still holds for it fails no more at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def fill_closed() -> None:
    """Open what the caller has closed of standard input, output and error: else the next file that is opened
    takes its number, and libraries write their messages into that."""
    for descriptor in (0, OUTPUT, ERRORS):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def said_by_click(error: OSError) -> bool:
    """True for what standard output raised while click wrote help or a version to it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__") == "click.utils"
