"""The errors that tumorseg raises on purpose.

TumorsegError            exit status 2 unless a leaf says otherwise
├── InputError           an image, folder, flag or number given by the caller is not usable
├── BundleError          a run or bundle is incomplete, altered, or of another schema
├── BackendError         a backend, device or optional package is not available as asked
│   └── GpuLostError     this process can use the GPU no more, another one may
└── CheckFailedError     the thing that was checked failed (exit status 1)
    ├── ParityError      an artefact decides other than PyTorch decided
    └── OutputError      a backend returned logits of a wrong shape or dtype, or not finite

Messages have one line: what was got, what was expected, what to do. Libraries raise; only the
command line prints and exits.
"""

from __future__ import annotations

from tumorseg_runtime.core.text import printable

LONGEST = 4000  # characters of a line: it may quote values of a file of many megabytes


class TumorsegError(Exception):
    """Base of all errors that tumorseg raises on purpose: a message, and where needed a list of details.

    As text it is what a terminal and a log may be given: names and values of files can end no line and
    give no command (`tumorseg_runtime.core.text`). Each detail stands on a line of its own.
    """

    exit_code = 2

    def __str__(self) -> str:
        return "\n  ".join(map(_line, self.args))


class InputError(TumorsegError):
    """An image, folder, flag or number given by the caller is not usable."""


class BundleError(TumorsegError):
    """A run or bundle is incomplete, altered, or of another schema."""


class BackendError(TumorsegError):
    """A backend, device or optional package is not available as asked."""


class GpuLostError(BackendError):
    """A CUDA error that stays: this process can use the GPU no more, another one may."""


class CheckFailedError(TumorsegError):
    """The thing that was checked failed."""

    exit_code = 1


class ParityError(CheckFailedError):
    """An artefact decides other than PyTorch decided."""


class OutputError(CheckFailedError):
    """A backend returned logits of a wrong shape or dtype, or logits that are not finite."""


def _line(said: object) -> str:
    text = str(said)
    more = len(text) - LONGEST
    return printable(text) if more <= 0 else f"{printable(text[:LONGEST])}... ({more} more characters)"
