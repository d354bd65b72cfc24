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

from tumorseg_runtime.cli.terminal import bar_on_terminal, say
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.paths import check_writable, require
from tumorseg_runtime.core.progress import Lines, Tell, silent

STEPS = 1000  # of a bar
WHOLE = 1000  # characters of a first sentence, which is never cut off
# Of what a command writes. Not `readable`: whoever reads it says in one line why it cannot.
PATH = click.Path(path_type=Path, readable=False)
RUN = "run.json"  # of a run that is whole; its module comes with torch


class Existing(click.Path):
    """The type of a path that is read: the command begins only where something is there.

    expected: what should be there, in a message such as "expected a bundle". holds: names of files of which
    a folder must hold one, none for any folder: a folder of another kind costs no import of torch either.
    """

    def __init__(self, expected: str, *holds: str) -> None:
        super().__init__(path_type=Path, readable=False)
        self.expected = expected
        self.holds = holds

    def check_kind(self, path: Path) -> None:
        """Raise InputError for a folder of another kind."""
        if self.holds and path.is_dir() and not any((path / name).exists() for name in self.holds):
            lacking = " and no ".join(self.holds)
            wait = ", or wait where it is still training" if RUN in self.holds else ""
            raise InputError(f"{path}: has no {lacking}, expected {self.expected}: check the path{wait}")


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
            with (
                click.progressbar(length=STEPS, label=what, file=sys.stderr) as bar,
                bar_on_terminal(what),
            ):
                yield lambda share: bar.update(round(share * STEPS) - bar.pos)
        else:
            yield Lines(what, self.log)

    def verdict(self, line: str) -> None:
        """The last line, with --quiet too; on standard error where standard output is JSON."""
        say(line, err=self.as_json)


class SuggestingGroup(click.Group):
    """A group that names the command that was probably meant, and cuts no description off in its help."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; a name that is none of the commands is told the nearest one."""
        names = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in names:
            like = difflib.get_close_matches(args[0], names, n=1) or self._inside(ctx, args[0])
            meant = f"Did you mean '{like[0]}'?" if like else f"Expected one of {', '.join(names)}."
            ctx.fail(f"No such command '{args[0]}'. {meant}")
        return super().resolve_command(ctx, args)

    def _inside(self, ctx: click.Context, name: str) -> list[str]:
        """The command of that name in a group of this group, as it is typed."""
        found = []
        for group in self.list_commands(ctx):
            with contextlib.suppress(ModuleNotFoundError):
                inner = self.get_command(ctx, group)
                if isinstance(inner, click.Group) and name in inner.list_commands(ctx):
                    found.append(f"{group} {name}")
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One line per command, with its whole first sentence."""
        rows = []
        for name in self.list_commands(ctx):
            try:
                command = self.get_command(ctx, name)
            except ModuleNotFoundError as error:
                rows.append((name, f"({self.lacking(error)})"))
            else:
                rows.append((name, command.get_short_help_str(limit=WHOLE) if command else ""))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def lacking(self, error: ModuleNotFoundError) -> str:
        """What stands in place of the description of a command that cannot be imported."""
        return str(error)


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
            if isinstance(parameter, click.Argument):
                continue  # the usage names them, the text above says what they are
            if (record := parameter.get_help_record(ctx)) is not None:
                lists[named.get(str(parameter.name), "Options")].append(record)
        for title, records in lists.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


T = TypeVar("T", bound=Options)
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def epilog(example: str) -> str:
    """The end of a help text."""
    return f"\b\nExample:\n  {example}"


def given(*but: str) -> list[str]:
    """Flags and arguments that were given, as they are typed; but: parameters that do not count."""
    context = click.get_current_context()
    return [
        str(one.human_readable_name) if isinstance(one, click.Argument) else one.opts[0]
        for one in context.command.params
        if one.name not in but
        and context.get_parameter_source(str(one.name)) is not click.core.ParameterSource.DEFAULT
    ]


def command(
    options: type[T],
    *,
    example: str,
    sections: dict[str, tuple[str, ...]] | None = None,
    needs: dict[str, str] | None = None,
) -> Callable[[Callable[[T], None]], SectionedCommand]:
    """Decorator: a click command with --json and --quiet, whose function takes one `options` object.

    example: a command line that parses. sections: of its help, as `SectionedCommand` has them.
    needs: parameter -> the one without which it would do nothing: given alone it is refused.
    """

    def decorate(function: Callable[[T], None]) -> SectionedCommand:
        @functools.wraps(function)  # click reads the parameters that the decorators below left on it
        def callback(**parameters: Any) -> None:
            read: list[tuple[Existing, Path]] = []
            for parameter in made.params:
                if isinstance(parameter.type, Existing):
                    paths = parameters[str(parameter.name)] or ()
                    read += [
                        (parameter.type, path) for path in (paths if isinstance(paths, tuple) else (paths,))
                    ]
            for kind, path in read:
                require(path, kind.expected)
            for kind, path in read:
                kind.check_kind(path)
            if isinstance(out := parameters.get("out"), Path):
                check_writable(out)
            flags = {str(one.name): one.opts[0] for one in made.params}
            for name, other in (needs or {}).items():
                if flags[name] in given() and not parameters[other]:
                    raise InputError(
                        f"{flags[name]} was given without {flags[other]}, where it does nothing: "
                        f"add {flags[other]}, or leave {flags[name]} out"
                    )
            function(options(**parameters))

        made = click.command(cls=SectionedCommand, epilog=epilog(example))(callback)
        made.sections = sections or {}
        made.params += [
            click.Option(["--json", "as_json"], is_flag=True, help="Print the result as JSON."),
            click.Option(
                ["--quiet"], is_flag=True, help="No progress: results, errors and the verdict stay."
            ),
        ]
        return made

    return decorate


def by_make() -> bool:
    """True where the user typed `make`, and not this command line."""
    return "MAKELEVEL" in os.environ and Path(sys.argv[0]).name == "tumorseg"


def spoken(*arguments: object) -> str:
    """A command line of tumorseg as the user can type it: under `make` with the path of its environment."""
    program = sys.argv[0] if by_make() else "tumorseg"
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
        "--run", "run_folder", type=Existing("a run", RUN), help=f"Run that the bundle was made from: {help}"
    )


def device_folder_option(
    *,
    required: bool = False,
    help: str = "Where engines built here lie [default: beside the bundle, else the user's cache].",
) -> Decorator:
    """--device-folder: what a device made for itself: its engines and its ranking."""
    return click.option("--device-folder", type=PATH, required=required, help=help)
