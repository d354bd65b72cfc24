"""Options of commands: each command takes one frozen dataclass; what several commands share is defined here.

    @dataclass(frozen=True)
    class PredictOptions(Options):          # a field for each click parameter, of the same name
        bundle: Path
        out: Path

    @command(PredictOptions, example="tumorseg predict bundles/b scan.png --out out")
    @bundle_argument
    @out_option(required=True, help="Folder for all outputs.")
    def predict(options: PredictOptions) -> None: ...

Needs click and `core` alone, so that a command's help costs no import of a backend or of torch.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from tumorseg_runtime.cli.terminal import say
from tumorseg_runtime.core.paths import require
from tumorseg_runtime.core.progress import Lines, Tell, silent

STEPS = 1000  # of a bar
PATH = click.Path(path_type=Path)  # of what a command writes


class Existing(click.Path):
    """The type of a path that is read: the command begins only where something is there.

    expected: what should be there, in a message such as "expected a bundle".
    """

    def __init__(self, expected: str) -> None:
        super().__init__(path_type=Path)
        self.expected = expected


def on_terminal() -> bool:
    """True where somebody watches standard error."""
    return sys.stderr is not None and sys.stderr.isatty()


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every command takes, and how it speaks beside its result."""

    as_json: bool
    quiet: bool

    def log(self, line: str) -> None:
        """A line of progress, on standard error; none with --quiet."""
        if not self.quiet:
            say(line, err=True)

    def step(self, line: str) -> None:
        """A line of progress that is part of the output for people, on standard output as the verdict."""
        if not self.quiet:
            say(line, err=self.as_json)

    @contextlib.contextmanager
    def progress(self, what: str) -> Iterator[Tell]:
        """Something to tell how far `what` is, which says so with the time that is left: a bar where standard
        error is a terminal, else a line now and then from five seconds on; neither with --quiet."""
        if self.quiet:
            yield silent
        elif on_terminal():
            with click.progressbar(length=STEPS, label=what, file=sys.stderr) as bar:
                yield lambda share: bar.update(round(share * STEPS) - bar.pos)
        else:
            yield Lines(what, self.log)

    def verdict(self, line: str) -> None:
        """The last line, with --quiet too; on standard error where standard output is JSON."""
        say(line, err=self.as_json)


class SuggestingGroup(click.Group):
    """A group that names the command that was probably meant, and an example in its help."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; a name that is none of the commands is told the nearest one."""
        names = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in names:
            like = difflib.get_close_matches(args[0], names, n=1)
            meant = f"Did you mean '{like[0]}'?" if like else f"Expected one of {', '.join(names)}."
            ctx.fail(f"No such command '{args[0]}'. {meant}")
        return super().resolve_command(ctx, args)


class SectionedCommand(click.Command):
    """A command whose help lists its options in sections.

    sections: title -> names of parameters; what is in none stands under "Options", first. What all commands
    have stands last.
    """

    sections: dict[str, tuple[str, ...]]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One list per section."""
        named = {name: title for title, names in self.sections.items() for name in names}
        named.update(dict.fromkeys(("as_json", "quiet", "help"), "Output"))
        lists: dict[str, list[tuple[str, str]]] = {
            title: [] for title in ("Options", *self.sections, "Output")
        }
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                lists[named.get(str(parameter.name), "Options")].append(record)
        for title, records in lists.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


T = TypeVar("T", bound=Options)
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def command(
    options: type[T], *, example: str, sections: dict[str, tuple[str, ...]] | None = None
) -> Callable[[Callable[[T], None]], SectionedCommand]:
    """Decorator: a click command with --json and --quiet, whose function takes one `options` object.

    example: a command line that parses. sections: of its help, as `SectionedCommand` has them.
    """

    def decorate(function: Callable[[T], None]) -> SectionedCommand:
        @functools.wraps(function)  # click reads the parameters that the decorators below left on it
        def callback(**parameters: Any) -> None:
            for parameter in made.params:
                if isinstance(parameter.type, Existing):
                    given = parameters[str(parameter.name)] or ()
                    for path in given if isinstance(given, tuple) else (given,):
                        require(path, parameter.type.expected)
            function(options(**parameters))

        made = click.command(cls=SectionedCommand, epilog=f"\b\nExample:\n  {example}")(callback)
        made.sections = sections or {}
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


bundle_argument = click.argument("bundle", type=Existing("a bundle"))
public_key_option = click.option(
    "--public-key", type=Existing("a public key"), help="Demand a signature by this key (PEM, Ed25519)."
)


def out_option(*, default: Path | None = None, required: bool = False, help: str) -> Decorator:
    """--out: where a command writes."""
    shown = default is not None
    return click.option("--out", type=PATH, default=default, required=required, show_default=shown, help=help)


def run_option(*, help: str) -> Decorator:
    """--run, the field `run_folder`: the run that a bundle was made from."""
    return click.option(
        "--run", "run_folder", type=Existing("a run"), help=f"Run that the bundle was made from: {help}"
    )


def device_folder_option(
    *,
    required: bool = False,
    help: str = "Where engines built here lie [default: beside the bundle, else the user's cache].",
) -> Decorator:
    """--device-folder: what a device made for itself: its engines and its ranking."""
    return click.option("--device-folder", type=PATH, required=required, help=help)
