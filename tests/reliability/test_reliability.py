"""The rows run, each finds what it looks for, and the table says what was found."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from reliability import rows as module
from reliability.__main__ import main
from reliability.disk_trace import Disk, Step
from reliability.power import WRITE, cut
from reliability.row import FAILED, NOT_POSSIBLE, PASSED, Settings, Tally
from tumorseg_runtime.core.errors import InputError

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.process]
DOCS = Path(__file__).parents[2] / "docs/reliability.md"
# `writing` without what it brings to the disk
CARELESS = "import os; os.fsync = lambda handle: None" + WRITE


def settings(folder: Path, scale: float = 1.0) -> Settings:
    return Settings(False, 0, scale, folder)


def test_every_row_has_its_function_and_its_line_in_the_docs() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for name, row in module.ROWS.items():
        file, _, function = row.run.partition(":")
        assert callable(getattr(importlib.import_module(f"reliability.{file}"), function))
        assert f"| {name} | {row.title} |" in text, f"{name}: make its line in {DOCS.name} anew"


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(("code", "right"), [(WRITE, True), (CARELESS, False)])
def test_power_cuts_find_a_write_that_is_not_brought_to_the_disk(
    code: str, right: bool, tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/file").write_bytes(b"old")

    def check(folder: Path) -> None:
        assert (folder / "file").read_bytes() in (b"old", b"new" * 5000, b"newer" * 5000)

    tally = Tally()
    cut(settings(tmp_path), tally, "file", code, [], tmp_path / "old", check)
    assert tally.counts["power cuts"] > 20
    assert (not tally.faults) is right, tally.faults


def test_what_a_disk_may_lose(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    disk = Disk(tmp_path / "root")
    part, path = f"{tmp_path}/root/part", f"{tmp_path}/root/file"
    import random

    def left(how: str) -> dict[str, bytes]:
        disk.after_power_cut(tmp_path / "left", random.Random(0), how)
        found = {path.name: path.read_bytes() for path in (tmp_path / "left").iterdir()}
        shutil.rmtree(tmp_path / "left")
        return found

    for step in (Step("make", part), Step("write", part, data=b"abc"), Step("name", part, to=path)):
        disk.take(step)
    assert left("all") == {"file": b"abc"}
    assert left("certain") == {}
    disk.take(Step("sync", f"{tmp_path}/root"))
    assert left("certain") == {"file": b""}  # the name is there, the bytes were never asked for
    disk.take(Step("sync", path))
    disk.take(Step("drop", path))
    assert left("certain") == {"file": b"abc"}
    assert left("all") == {}


def test_what_is_neither_well_nor_refused_is_a_fault() -> None:
    tally = Tally()

    def refuse() -> None:
        raise InputError("no")

    def careless() -> None:
        raise KeyError("x")

    assert tally.attempt("a", lambda: None)
    assert not tally.attempt("b", refuse)
    assert not tally.faults
    assert not tally.attempt("c", careless)
    assert tally.faults == ["c: KeyError: 'x'"]
    assert dict(tally.counts) == {"accepted": 1, "refused": 1}


def test_the_command_prints_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=":")
    out = tmp_path / "out"
    done = CliRunner().invoke(
        main, ["--row", "tampered", "--row", "worker", "--scale", "0.02", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert "| tampered | files of a bundle changed, through every door |" in (out / "table.md").read_text()
    record = json.loads((out / "tampered.json").read_text())
    assert record["status"] == PASSED
    assert record["counts"]["changes"] == 3
    assert record["counts"]["refused"] >= 3
    assert json.loads((out / "worker.json").read_text())["status"] in (PASSED, NOT_POSSIBLE)


def test_pieces_are_kept_and_their_counts_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import reliability.__main__ as program

    ran: list[int] = []

    def run_row(name: str, form: str, seed: int, scale: float, out: Path) -> dict[str, object]:
        ran.append(seed)
        status = FAILED if seed == 8 and ran.count(8) == 1 else PASSED
        record = {
            "row": name,
            "form": form,
            "seed": seed,
            "scale": scale,
            "status": status,
            "reason": "no" * (status == FAILED),
        }
        record |= {"counts": {"inputs": 10, "readers": 3}, "faults": [], "seconds": 1.5, "cpu_seconds": 1}
        (out / f"{name}.json").write_text(json.dumps(record))
        return record

    monkeypatch.setattr(program, "run_row", run_row)
    arguments = ("fuzzed", "long", 7, 0.4, 4, tmp_path)
    first, second = program.run_pieces(*arguments), program.run_pieces(*arguments)
    assert (first["status"], first["reason"], second["status"]) == (FAILED, "no", PASSED)
    assert ran == [7, 8, 9, 10, 8]  # of the second run only what had failed
    assert second["counts"] == {"inputs": 40, "readers": 3}
    assert (second["seed"], second["scale"], second["seconds"]) == ("7-10", 0.4, 6.0)
    assert json.loads((tmp_path / "fuzzed.json").read_text()) == second
    program.run_pieces("fuzzed", "long", 7, 0.8, 4, tmp_path)
    assert ran[5:] == [7, 8, 9, 10]  # another count is another run


def test_a_row_that_dies_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reliability.__main__ import run_row

    record = run_row("no such row", "quick", 0, 1.0, tmp_path)
    assert record["status"] == FAILED
    assert "left no record" in record["reason"]
