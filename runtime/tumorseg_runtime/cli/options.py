"""Options of commands: each command takes one frozen dataclass; what several commands share is defined here.

    @dataclass(frozen=True)
    class PredictOptions(Options):          # a field for each click parameter, of the same name
        bundle: Path
        out: Path

    @command(PredictOptions, example="tumorseg predict bundles/b scan.png --out out")
    @bundle_argument
    @out_option(required=True, help="Folder for all outputs.")
    def predict(options: PredictOptions) -> None: ...

Needs click alone, so that a command's help costs no import of a backend or of torch.
"""

from __future__ import annotations

import functools
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

PATH = click.Path(path_type=Path)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every command takes, and how it speaks beside its result."""

    as_json: bool
    quiet: bool

    def log(self, line: str) -> None:
        """A line of progress, on standard error; none with --quiet."""
        if not self.quiet:
            click.echo(line, err=True)

    def step(self, line: str) -> None:
        """A line of progress that is part of the output for people, on standard output as the verdict."""
        if not self.quiet:
            click.echo(line, err=self.as_json)

    def verdict(self, line: str) -> None:
        """The last line, with --quiet too; on standard error where standard output is JSON."""
        click.echo(line, err=self.as_json)


T = TypeVar("T", bound=Options)
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def command(options: type[T], *, example: str) -> Callable[[Callable[[T], None]], click.Command]:
    """Decorator: a click command with --json and --quiet, whose function takes one `options` object."""

    def decorate(function: Callable[[T], None]) -> click.Command:
        @functools.wraps(function)  # click reads the parameters that the decorators below left on it
        def callback(**parameters: Any) -> None:
            function(options(**parameters))

        made = click.command(epilog=f"\b\nExample:\n  {example}")(callback)
        made.params += [
            click.Option(["--json", "as_json"], is_flag=True, help="Print the result as JSON."),
            click.Option(
                ["--quiet"], is_flag=True, help="No progress: results, errors and the verdict stay."
            ),
        ]
        return made

    return decorate


def spoken(*arguments: object) -> str:
    """A command line of tumorseg as the user can type it: under `make` with the path of its environment."""
    by_make = "MAKELEVEL" in os.environ and Path(sys.argv[0]).name == "tumorseg"
    program = sys.argv[0] if by_make else "tumorseg"
    return shlex.join([program, *map(str, arguments)])


bundle_argument = click.argument("bundle", type=PATH)
public_key_option = click.option(
    "--public-key", type=PATH, help="Demand a signature by this key (PEM, Ed25519)."
)


def out_option(*, default: Path | None = None, required: bool = False, help: str) -> Decorator:
    """--out: where a command writes."""
    shown = default is not None
    return click.option("--out", type=PATH, default=default, required=required, show_default=shown, help=help)


def run_option(*, help: str) -> Decorator:
    """--run, the field `run_folder`: the run that a bundle was made from."""
    return click.option("--run", "run_folder", type=PATH, help=f"Run that the bundle was made from: {help}")


def device_folder_option(
    *,
    required: bool = False,
    help: str = "Where engines built here lie [default: beside the bundle, else the user's cache].",
) -> Decorator:
    """--device-folder: what a device made for itself: its engines and its ranking."""
    return click.option("--device-folder", type=PATH, required=required, help=help)
