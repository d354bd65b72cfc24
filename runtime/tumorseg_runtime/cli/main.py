"""The command `tumorseg`: a click group whose commands come from the entry-point group
`tumorseg.commands`, loaded only when asked for, so that the runtime never names train or export."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import io
import os
import sys
import warnings
from collections.abc import Iterator

import click
import cv2

from tumorseg_runtime.backends import BACKENDS
from tumorseg_runtime.cli.options import SuggestingGroup, epilog
from tumorseg_runtime.cli.terminal import fill_closed, no_output, said_by_click, say, say_text
from tumorseg_runtime.core.errors import TumorsegError
from tumorseg_runtime.core.paths import cannot_be_used
from tumorseg_runtime.core.stop import Stopped, leave_in_peace, stoppable
from tumorseg_runtime.core.text import printable

GROUP = "tumorseg.commands"
# package of a command -> extra that brings what it imports
EXTRAS = {"tumorseg_train": "train", "tumorseg_export": "export", "tumorseg_benchmarks": "export"}
# modules that another extra brings, whichever command asks for them
MODULE_EXTRAS = {
    **{spec.wheels[0]: spec.devices["cpu"] for spec in BACKENDS.values() if spec.wheels},
    "pydicom": "dicom",
    **dict.fromkeys(("jinja2", "markupsafe"), "pages"),
}
SILENT = 0  # OpenCV's log level


class LazyGroup(SuggestingGroup):
    """A group that finds its commands among the installed entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all installed commands."""
        return sorted(importlib.metadata.entry_points(group=GROUP).names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; None where no package offers it."""
        for entry in importlib.metadata.entry_points(group=GROUP, name=cmd_name):
            command = entry.load()
            if not isinstance(command, click.Command):
                raise TypeError(
                    f"entry point {entry.value} is {type(command).__name__}, expected a click command"
                )
            return command
        return None

    def lacking(self, error: ModuleNotFoundError) -> str:
        """The extra that brings what is missing."""
        return _remedy(error) or str(error)


@click.group(cls=LazyGroup, epilog=epilog("tumorseg demo"))
@click.version_option(package_name="tumorseg")
def cli() -> None:
    """From a trained tumour-segmentation network to a verified engine on an edge device.

    For research; not a medical device. Exit status: 0 done, 1 the thing checked failed, 2 bad usage or input,
    130 and 143 stopped by Ctrl-C (SIGINT) and by SIGTERM.
    """


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program on the project's own errors and on signals, with one message and its exit status."""
    try:
        with stoppable():
            yield
    except TumorsegError as error:
        say_text(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except Stopped as stopped:
        if stopped.hint:
            say(str(stopped), err=True)
        leave_in_peace()
        sys.exit(stopped.exit_code)
    except (MemoryError, OSError, RuntimeError) as error:
        if lack := _lacking(error):
            say(f"error: {lack}; files that were written are whole", err=True)
        elif isinstance(error, OSError) and error.filename is not None:
            path = printable(os.fsdecode(error.filename))
            say(f"error: {path}: {cannot_be_used(error)}: check the path and its rights", err=True)
        else:
            raise
        sys.exit(2)


def _lacking(error: MemoryError | OSError | RuntimeError) -> str | None:
    """What the system has refused to give this process, and what to do; None for another error."""
    code = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or code == errno.ENOMEM:
        return "the memory is used up, expected more: end other programs, or take smaller images or batches"
    if "can't start new thread" in str(error) or code == errno.EAGAIN:
        return "no thread or process can be started, expected some: raise the limit of memory or of processes"
    if code in (errno.EMFILE, errno.ENFILE):
        return "no further file can be opened, expected some dozens: raise the limit (ulimit -n)"
    return None


def main() -> None:
    """Run the command line; turn the project's own errors into one message and an exit status."""
    # a file that cannot be decoded is reported once, by us; the function has its place by OpenCV 4 or 5
    set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    set_log_level(SILENT)
    # pydicom's warnings quote values of the file, which may be about a patient
    warnings.filterwarnings("ignore", module="pydicom")
    fill_closed()
    try:
        with one_line_errors(), _printable_usage():
            code = cli.main(
                prog_name="tumorseg", standalone_mode=False
            )  # an int after --help, and of ctx.exit
            sys.exit(code if isinstance(code, int) else 0)
    except ModuleNotFoundError as error:
        remedy = _remedy(error)
        if remedy is None:
            raise
        say(f"error: this command {remedy}", err=True)
        sys.exit(2)


@contextlib.contextmanager
def _printable_usage() -> Iterator[None]:
    """What click says by itself: wrong usage, which may quote anything, and help on a full disk."""
    try:
        yield
    except click.ClickException as error:
        vars(error)["message"] = printable(error.message)  # final for those who derive from it
        with contextlib.redirect_stderr(io.StringIO()) as said:
            error.show()
        say_text(said.getvalue(), err=True, nl=False)
        sys.exit(error.exit_code)
    except click.Abort:
        say("error: standard input ended before the answer", err=True)
        sys.exit(2)
    except OSError as error:
        if not said_by_click(error):
            raise
        raise no_output(error.strerror or str(error)) from error


def _remedy(error: ModuleNotFoundError) -> str | None:
    extra = missing_extra(error)
    return extra and f"needs {error.name}, which is not installed: pip install 'tumorseg[{extra}]'"


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """The extra that brings the missing module, judged by the command's package, the first one called."""
    if error.name in MODULE_EXTRAS:
        return MODULE_EXTRAS[error.name]
    if (error.name or "").startswith("tumorseg_"):
        return None  # no extra brings it: the installation is broken
    trace = error.__traceback__
    while trace is not None:
        package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in EXTRAS:
            return EXTRAS[package]
        trace = trace.tb_next
    return None
