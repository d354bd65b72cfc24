from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from tumorseg_runtime.cli import main as cli
from tumorseg_runtime.images.read import write_png

MAIN = "from tumorseg_runtime.cli.main import main; main()"


def tumorseg(*args: object, before: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", before + MAIN, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    write_png(tmp_path / "scan.png", np.random.default_rng(0).integers(0, 256, (50, 60), np.uint8))
    return tmp_path / "scan.png"


@pytest.mark.process
def test_success_is_0(small_bundle: Path, image: Path, tmp_path: Path) -> None:
    done = tumorseg("predict", small_bundle, image, "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("1 images -> ")


@pytest.mark.process
def test_a_bad_file_is_1_and_one_line_each(small_bundle: Path, image: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.tif"
    bad.write_bytes(b"II*\0\x08\0\0\0" + bytes(40))
    cut = tmp_path / "cut.png"
    cut.write_bytes(image.read_bytes()[:-30])
    done = tumorseg("predict", small_bundle, image, bad, cut, "--out", tmp_path / "out")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error"] * 3
    assert "bad.tif" in lines[0]
    assert "cut.png" in lines[1]
    assert lines[2].startswith("error: 2 of 3 files could not be segmented")


@pytest.mark.process
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["{none}", "{image}"], "does not exist, expected a bundle: check the path"),
        (["{bundle}", "{image}", "--device", "cuda"], "onnxruntime on 'cuda' is not available"),
        (["{bundle}", "{image}", "--backend", "magic"], "backend is 'magic'"),
        (["{bundle}", "{image}", "--precision", "fp16"], "has no fp16 onnx artefact"),
        (
            ["{bundle}", "{image}", "--out", "{bundle}/model.onnx/out"],
            "model.onnx is a file): choose another name",
        ),
    ],
)
def test_bad_usage_is_2_and_one_line(
    small_bundle: Path, image: Path, tmp_path: Path, args: list[str], message: str
) -> None:
    names = {"none": tmp_path / "none", "image": image, "bundle": small_bundle}
    given = [arg.format(**names) for arg in args]
    if "--out" not in given:
        given += ["--out", str(tmp_path / "out")]
    done = tumorseg("predict", *given)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.process
def test_unknown_commands_and_flags_are_2() -> None:
    for args in (["nonsense"], ["predict"], ["predict", "--nonsense"]):
        done = tumorseg(*args)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert "Error: " in done.stderr


@pytest.mark.process
def test_help_names_every_command_where_only_the_base_is_installed() -> None:
    absent = "import sys; sys.modules.update(dict.fromkeys(['torch', 'onnx', 'onnxruntime', 'matplotlib'])); "
    done = tumorseg("--help", before=absent)
    assert done.returncode == 0, done.stderr
    for name in ("data", "train", "export", "predict", "parity", "bench"):
        assert f"\n  {name} " in done.stdout
    assert "not a medical device" in done.stdout


class Entry:
    """An entry point of a package whose module cannot be imported."""

    def __init__(self, package: str, missing: str) -> None:
        self.name, self.value = "fragile", f"{package}.command:fragile"
        self.code = f"raise ModuleNotFoundError('No module named {missing}', name={missing!r})"
        self.package = package

    def load(self) -> click.Command:
        exec(self.code, {"__name__": f"{self.package}.command"})
        raise AssertionError("the code above raises")


def install(monkeypatch: pytest.MonkeyPatch, entry: Any) -> None:
    class Entries(list[Any]):
        names = (entry.name,)

    monkeypatch.setattr(cli.importlib.metadata, "entry_points", lambda **_: Entries([entry]))


@pytest.mark.parametrize(
    ("package", "missing", "extra"),
    [
        ("tumorseg_train", "torch", "train"),
        ("tumorseg_export", "onnx", "export"),
        ("tumorseg_benchmarks", "torch", "export"),
        ("tumorseg_benchmarks", "onnxruntime", "cpu"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    package: str,
    missing: str,
    extra: str,
) -> None:
    install(monkeypatch, Entry(package, missing))
    listed = CliRunner().invoke(cli.cli, ["--help"])
    assert listed.exit_code == 0
    assert f"needs {missing}" in listed.output
    monkeypatch.setattr(sys, "argv", ["tumorseg", "fragile"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    expected = (
        f"error: this command needs {missing}, which is not installed: pip install 'tumorseg[{extra}]'\n"
    )
    assert capsys.readouterr().err == expected


def test_a_broken_installation_is_not_mistaken_for_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Entry("tumorseg_train", "tumorseg_train.gone"))
    monkeypatch.setattr(sys, "argv", ["tumorseg", "fragile"])
    with pytest.raises(ModuleNotFoundError):
        cli.main()


def test_an_entry_point_that_is_no_command_is_a_programming_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, SimpleNamespace(name="x", value="a.b:c", load=lambda: 5))
    with pytest.raises(TypeError, match="expected a click command"):
        CliRunner().invoke(cli.cli, ["x"], catch_exceptions=False)


@pytest.mark.process
def test_warnings_that_may_quote_a_patients_data_are_not_printed() -> None:
    warn = "lambda **_: [w.warn_explicit(name, UserWarning, 'f', 1, module=name) for name in names]"
    code = (
        "import warnings as w; from tumorseg_runtime.cli import main as cli; "
        f"names = ('pydicom.valuerep', 'ours'); cli.cli.main = {warn}; cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "ours" in done.stderr
    assert "pydicom" not in done.stderr


@pytest.mark.fault
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "the memory is used up"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "the memory is used up"),
        (RuntimeError("can't start new thread"), "no thread or process can be started"),
        (OSError(errno.EMFILE, "Too many open files"), "no further file can be opened"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(**_: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "cli", SimpleNamespace(main=refused))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")


def test_other_errors_of_these_kinds_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: Any) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(cli, "cli", SimpleNamespace(main=refused))
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        cli.main()
