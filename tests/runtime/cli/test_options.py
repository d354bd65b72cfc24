"""Every installed command keeps the rules of `cli/options.py`."""

from __future__ import annotations

import dataclasses
import inspect
import json
import typing
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tumorseg_runtime.cli import options as module
from tumorseg_runtime.cli.main import cli
from tumorseg_runtime.cli.options import Options, command, out_option
from tumorseg_runtime.core import progress

ALL = {
    "bench", "build", "bundle pack", "bundle unpack", "calibrate", "compare", "data audit", "data import",
    "data phantoms", "data prepare", "demo", "deploy", "doctor", "evaluate", "export", "install", "parity",
    "predict", "rollback", "serve-repository", "sign", "train", "unfold", "verify",
}  # fmt: skip
SHARED = ("--json", "--quiet", "--out", "--run", "--device-folder", "--public-key")


def walk(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Commands by their full names, those of groups in place of the groups."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from walk(found, f"{before}{name} ")
        else:
            yield f"{before}{name}", found


@pytest.fixture(scope="module")
def commands() -> dict[str, click.Command]:
    found = dict(walk(cli))
    assert set(found) == ALL
    return found


@pytest.mark.parametrize("name", sorted(ALL))
def test_one_frozen_object_whose_fields_are_the_parameters(
    commands: dict[str, click.Command], name: str
) -> None:
    callback = commands[name].callback
    assert callback is not None
    function = inspect.unwrap(callback)
    (only,) = inspect.signature(function).parameters
    options = typing.get_type_hints(function)[only]
    assert issubclass(options, Options)
    assert options.__dataclass_params__.frozen
    assert {field.name for field in dataclasses.fields(options)} == {p.name for p in commands[name].params}


def test_a_path_that_cannot_be_read_is_told_by_its_reader(commands: dict[str, click.Command]) -> None:
    """click would say so in three lines of usage; an administrator, as whom tests may run, may read all."""
    kinds = {
        (name, one.name): one.type.readable
        for name, found in commands.items()
        for one in found.params
        if isinstance(one.type, click.Path)
    }
    assert len(kinds) > 40
    assert not any(kinds.values()), kinds


@pytest.mark.parametrize("name", sorted(ALL))
def test_help_has_json_quiet_and_an_example_that_parses(
    commands: dict[str, click.Command], name: str
) -> None:
    text = CliRunner().invoke(cli, [*name.split(), "--help"]).output.rstrip()
    assert "\n  --json " in text
    assert "\n  --quiet " in text
    example = text.splitlines()[-1].strip()
    assert text.endswith(f"  Example:\n    {example}")
    assert example.startswith(f"tumorseg {name} ")
    given = example.removeprefix(f"tumorseg {name} ").split()
    parsed = commands[name].make_context(name, given).params
    assert not parsed["quiet"]


@dataclasses.dataclass(frozen=True)
class SpeakOptions(Options):
    out: Path


@command(SpeakOptions, example="speak --out here")
@out_option(default=Path("there"), help="Where.")
def speak(options: SpeakOptions) -> None:
    """Say each kind of line once."""
    options.log("log")
    options.step("step")
    if options.as_json:
        click.echo(json.dumps(str(options.out)))
    options.verdict("verdict")


@pytest.mark.parametrize(
    ("given", "stdout", "stderr"),
    [
        ([], ["step", "verdict"], ["log"]),
        (["--quiet"], ["verdict"], []),
        (["--json"], ['"there"'], ["log", "step", "verdict"]),
        (["--json", "--quiet", "--out", "x"], ['"x"'], ["verdict"]),
    ],
)
def test_quiet_silences_progress_and_json_has_standard_output_to_itself(
    given: list[str], stdout: list[str], stderr: list[str]
) -> None:
    done = CliRunner().invoke(speak, given)
    assert done.exit_code == 0
    assert (done.stdout.splitlines(), done.stderr.splitlines()) == (stdout, stderr)


@pytest.mark.parametrize(("given", "stderr"), [([], ["reading: 50%, 6 s left"]), (["--quiet"], [])])
def test_progress_without_a_terminal_is_plain_lines(
    given: list[str], stderr: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter((0.0, 6.0, 12.0))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))

    @module.command(module.Options, example="tumorseg wait")
    def wait(options: module.Options) -> None:
        with options.progress("reading") as tell:
            tell(0.5)
            tell(1.0)

    assert CliRunner().invoke(wait, given).stderr.splitlines() == stderr


def test_shared_options_are_defined_in_one_place() -> None:
    root = Path(module.__file__).parents[3]
    rooms = [root / "runtime/tumorseg_runtime/cli", *root.glob("*/tumorseg_*/commands")]
    assert len(rooms) == 4
    for path in (path for room in rooms for path in room.glob("*.py") if path.name != "options.py"):
        text = "".join(path.read_text(encoding="utf-8").split())
        assert not [flag for flag in SHARED if f'click.option("{flag}"' in text], path


@pytest.mark.parametrize("name", sorted(ALL))
def test_sections_name_parameters_and_leave_few_unsorted(
    commands: dict[str, click.Command], name: str
) -> None:
    made = commands[name]
    assert isinstance(made, module.SectionedCommand)
    sorted_in = [one for names in made.sections.values() for one in names]
    options = {one.name for one in made.params if isinstance(one, click.Option)}
    assert len(sorted_in) == len(set(sorted_in))
    assert set(sorted_in) <= options
    assert len(options - set(sorted_in)) <= 8  # --json and --quiet among them


def test_no_description_in_the_list_of_commands_is_cut_off() -> None:
    text = CliRunner().invoke(cli, ["--help"]).output
    assert "..." not in text.partition("Commands:")[2]
