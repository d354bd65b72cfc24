"""No foreign text commands a terminal, and an output that takes nothing is one line and the right status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tumorseg_runtime.cli.terminal import ERASE, bar_on_terminal, say, say_text
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.text import printable
from tumorseg_runtime.images.read import write_png

TUMORSEG = [sys.executable, "-c", "from tumorseg_runtime.cli.main import main; main()"]
TITLE = "\x1b]0;owned\x07\x1b[2J"
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def run(*arguments: object, closed: tuple[int, ...] = (), **streams: Any) -> subprocess.CompletedProcess[str]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}

    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    return subprocess.run(
        [*TUMORSEG, *map(str, arguments)],
        text=True,
        preexec_fn=close if closed else None,
        check=False,
        **streams,
    )


def test_what_a_terminal_obeys_is_escaped() -> None:
    assert printable("a\nb") == r"a\u000ab"
    assert printable(TITLE) == r"\u001b]0;owned\u0007\u001b[2J"
    assert printable("\u202egpj\x9b\x7f\udcff") == r"\u202egpj\u009b\u007f\udcff"
    assert printable("Müller 脳 é\t", keep="\t") == "Müller 脳 é\t"


def test_json_stays_the_same_json(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"na\nme": TITLE + "\u202e\x9b", "list": ["\x7f"]}
    say_text(json.dumps(values, indent=2, ensure_ascii=False))
    said = capsys.readouterr().out
    assert json.loads(said) == values
    assert all(line.isprintable() for line in said.splitlines())


def test_a_line_is_one_line_and_errors_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\nerror: forged")
    assert capsys.readouterr().out.count("\n") == 1
    assert str(InputError("x\ny: " + TITLE)).isprintable()
    assert str(InputError("two faults:", "one\nforged", "two")) == "two faults:\n  one\\u000aforged\n  two"
    assert len(str(InputError("x" * 10**6))) < 5000


@pytest.mark.process
def test_names_and_records_reach_no_terminal_as_they_are(
    make_bundle: Callable[..., Path], edit_index: Callable[..., None], tmp_path: Path
) -> None:
    root = make_bundle(tmp_path / "bundle")
    image = tmp_path / f"a\n{TITLE}\u202e.png"
    image.write_bytes(b"none")
    sound = tmp_path / f"b\n{TITLE}.png"
    write_png(sound, __import__("numpy").zeros((40, 40), "uint8"))
    said = [run("predict", root, image, sound, "--out", tmp_path / "out")]
    edit_index(root, lambda values: values.update(schema=f"1\n{TITLE}"))
    said += [
        run("verify", root),
        run("verify", tmp_path / f"{TITLE}\nnowhere"),
        run("doctor", f"--{TITLE}\nx"),
        run(f"{TITLE}\nx"),
        run("predict", root, image, "--out", tmp_path / "o", "--batch", f"{TITLE}\nx"),
    ]
    assert [one.returncode for one in said] == [1, 2, 2, 2, 2, 2]
    for one in said:
        for line in (one.stdout + one.stderr).split("\n"):
            assert line.isprintable(), line
    assert sum(line.startswith("error:") for line in said[0].stderr.splitlines()) == 2  # the file, the sum


@pytest.mark.slow
@FULL
@pytest.mark.process
@pytest.mark.fault
def test_an_output_that_takes_nothing_is_one_line(small_bundle: Path, tmp_path: Path) -> None:
    image = tmp_path / "x.png"
    write_png(image, __import__("numpy").zeros((40, 40), "uint8"))
    predict = ("predict", small_bundle, image, "--out", tmp_path / "out")
    with open("/dev/full", "w") as full:
        for arguments, streams in (
            (predict, {"stdout": full}),
            (predict, {"closed": (1,)}),
            (("--help",), {"stdout": full}),
            (("doctor", small_bundle, "--json"), {"stdout": full}),
        ):
            done = run(*arguments, **streams)
            assert done.returncode == 2, (arguments, streams, done.stderr)
            lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
            assert len(lines) == 1, done.stderr
            assert "standard output cannot be written" in lines[0]
            assert "Traceback" not in done.stderr
        assert run(*predict, stderr=full).returncode == 0
        assert run("verify", tmp_path, closed=(0, 1, 2)).returncode == 2


@pytest.mark.process
def test_a_closed_output_gets_no_file_of_ours(small_bundle: Path, tmp_path: Path) -> None:
    """Without it the first file that is opened would take the number 1, and get what a library says there."""
    code = "import os\nfrom tumorseg_runtime.cli.terminal import fill_closed\nfill_closed()\n"
    code += f"f = open({str(tmp_path / 'mask')!r}, 'w'); assert f.fileno() > 2; os.write(1, b'x')"
    subprocess.run([sys.executable, "-c", code], preexec_fn=lambda: os.close(1), check=True)
    assert (tmp_path / "mask").read_bytes() == b""


def test_a_line_stands_not_behind_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with bar_on_terminal("exporting"):
        say("made onnx")
    say("sealed")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("made onnx\nsealed\n", ERASE.removesuffix("\x1b[K"))  # click: no terminal
