"""A path that is not there: one line, exit status 2, before anything heavy is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tumorseg_runtime.cli.main import cli, one_line_errors
from tumorseg_runtime.cli.options import Existing
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.images.read import write_png
from tumorseg_runtime.outputs.image_files import is_mask, list_images

ABSENT = "import sys; sys.modules.update(dict.fromkeys(['torch', 'onnx', 'onnxruntime', 'matplotlib'])); "
MAIN = ABSENT + "from tumorseg_runtime.cli.main import main; main()"
HERE = Path(__file__).parent
GIVEN = [
    "bench gone", "bench {here} --run gone", "bench {here} --images gone", "bench {here} --parity gone",
    "build gone --device-folder x", "compare gone", "compare {here} --bench gone", "data audit gone",
    "data audit {here} --split gone", "data prepare gone", "doctor gone", "evaluate gone",
    "evaluate {here} --data gone", "evaluate {here} --split gone", "export gone --out x",
    "export {here} --out x --sign gone", "export {here}/test_paths.py --out x --images gone",
    "install x gone",
    "parity gone", "parity {here} --run gone", "predict gone {here} --out x",
    "predict {here} gone --out x",
    "rollback gone", "sign gone --key {here}", "sign {here} --key gone", "train gone --out x",
    "unfold gone --out x.safetensors",
    "train --resume gone", "train data --out x --init gone", "verify gone",
    "verify {here} --public-key gone",
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "why"),
    [("gone", "does not exist"), ("x" * 300, "cannot be used (File name too long)")],
    ids=["missing", "too long"],
)
@pytest.mark.parametrize("given", GIVEN)
def test_every_command_refuses_a_path_that_is_not_there(
    given: str, name: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for package in ("torch", "onnx"):
        monkeypatch.setitem(sys.modules, package, None)  # its import would fail
    words = given.format(here=HERE).split()
    result = CliRunner().invoke(cli, [name if word == "gone" else word for word in words])
    assert isinstance(result.exception, InputError), result.output
    assert str(result.exception).startswith(f"{name}: {why}, expected ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "given", ["train {here} --out", "predict {here} {here}/a.png --out", "export {here} --out"]
)
def test_a_path_that_the_system_refuses_is_one_line(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Existing, "check_kind", lambda *_: None)
    with pytest.raises(SystemExit) as ended, one_line_errors():
        cli.main([*given.format(here=HERE).split(), "x" * 300], standalone_mode=False)
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    expected = "a place to write to: choose another"
    assert line == f"error: {'x' * 300}: cannot be used (File name too long), expected {expected}"


@pytest.mark.parametrize(
    "given",
    [
        "bench {here}", "bundle pack {here}", "compare {here} {here}", "demo", "data audit {here}",
        "export {here}", "parity {here}", "predict {here} {here}", "serve-repository {here}",
        "train {here}", "unfold {here}",
    ],
)  # fmt: skip
def test_where_it_cannot_write_no_command_begins(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Existing, "check_kind", lambda *_: None)
    (tmp_path / "file").touch()
    words = given.format(here=HERE).split()
    result = CliRunner().invoke(cli, [*words, "--out", str(tmp_path / "file/x/y.html")])
    assert f"y.html: cannot be written ({tmp_path}/file is a file): choose another" in str(result.exception)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    result = CliRunner().invoke(cli, [*words, "--out", str(tmp_path / "x/y.html")])
    assert f"y.html: cannot be written (no right to write in {tmp_path})" in str(result.exception)


def test_an_error_of_the_system_names_its_path(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, one_line_errors():
        Path("x\x1b[2J" * 60).stat()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(": cannot be used (File name too long): check the path and its rights")
    assert "\x1b" not in line
    with pytest.raises(OSError, match="odd"), one_line_errors():
        raise OSError("odd")  # of no path: a fault of ours, whole


@pytest.mark.slow
@pytest.mark.process
def test_flags_that_cost_nothing_to_check_are_checked_before_torch_is_imported(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("images", "masks"):
        (data / name).mkdir(parents=True)
        write_png(data / name / "1.png", np.zeros((64, 64), np.uint8))
    filled = tmp_path / "filled"
    filled.mkdir()
    (filled / "notes.txt").touch()
    for given, message in (
        (["train", data, "--out", "x", "--size", "100"], "input height is 100"),
        (["train", data, "--out", "x", "--recipe", "fast"], "fast"),
        (["train", data, "--out", "x", "--set", "corp=64"], "corp"),
        (["train", data, "--out", filled], "exists and is no run"),
        (["train", filled, "--out", "x"], "filled: holds notes.txt, expected"),
        (["export", filled / "notes.txt", "--out", "x", "--targets", "onxx"], "targets: got 'onxx'"),
        (["export", filled / "notes.txt", "--out", "x", "--size", "big"], "--size is 'big'"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", MAIN, *map(str, given)],
            capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
        )  # fmt: skip
        (line,) = done.stderr.splitlines()
        assert (done.returncode, line.startswith("error: ")) == (2, True), line
        assert message in line


def test_the_name_that_was_meant(tmp_path: Path) -> None:
    (tmp_path / "bundles").mkdir()
    result = CliRunner().invoke(cli, ["verify", str(tmp_path / "bundels")])
    assert str(result.exception) == (
        f"{tmp_path}/bundels: does not exist (there is {tmp_path}/bundles), expected a bundle: check the path"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["pridict"], "No such command 'pridict'. Did you mean 'predict'?"),
        (["data", "prepair"], "No such command 'prepair'. Did you mean 'prepare'?"),
        (["xyzzy"], "No such command 'xyzzy'. Expected one of bench, build, "),
    ],
)
def test_a_mistyped_command_is_told_the_nearest(given: list[str], message: str) -> None:
    result = CliRunner().invoke(cli, given)
    assert result.exit_code == 2
    assert message in result.stderr


def test_masks_in_folders_are_skipped_and_counted(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    for name in (
        "a/1.png",
        "a/1_mask.png",
        "a/1_mask_1.png",
        "b/images/2.png",
        "b/masks/2.png",
        "masks/3.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(tmp_path / name, pixels)
    said: list[str] = []
    found = list_images((tmp_path,), log=said.append)
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a/1.png", "b/images/2.png", "masks/3.png"]
    (line,) = said
    assert line.startswith(f"{tmp_path}: skipped 3 masks ")
    named = tmp_path / "a/1_mask.png"
    assert list_images((named,)) == [named]
    with pytest.raises(InputError, match="holds no images but 1 masks"):
        list_images((tmp_path / "b/masks",))
    assert not is_mask(Path("_mask.png"))
