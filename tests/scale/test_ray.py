"""`tumorseg predict --engine ray` on a cluster of two machines, one of which is killed in the middle."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("ray") is None:
    pytest.skip("no environment with Ray: make scale", allow_module_level=True)
pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.fault]
RUN = Path(__file__).with_name("ray_run.py")
PREDICT = [sys.executable, "-c", "from tumorseg_runtime.cli.main import main; main()", "predict"]
ARGUMENTS = ["--precision", "fp16", "--threads", "1", "--no-overlays"]
LOG, SUMMARY, TABLE = "predictions.jsonl", "predictions.json", "predictions.parquet"


def files_of(out: Path) -> dict[str, bytes]:
    paths = (path for path in out.rglob("*") if path.is_file() and path.name != TABLE)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, shipped: Path, archive: Path) -> dict[str, bytes]:
    """What one machine makes of the archive."""
    out = tmp_path_factory.mktemp("alone")
    command = [*PREDICT, str(shipped), str(archive), "--out", str(out), *ARGUMENTS, "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr  # for the damaged file
    files = files_of(out)
    assert len(files) == 59 + 2
    return files


@pytest.fixture
def on_ray(shipped: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Function that runs the command on a cluster, its working folder elsewhere."""

    def run(*arguments: str) -> dict[str, Any]:
        command = [sys.executable, str(RUN), str(shipped), "--json", *arguments, *ARGUMENTS]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def table_of(out: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    return parquet.read_table(out / TABLE).to_pylist()


@pytest.mark.parametrize("killed", ["process", "node"])
def test_nothing_is_lost_and_nothing_twice(
    killed: str, on_ray: Callable[..., dict[str, Any]], archive: Path, tmp_path: Path, alone: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    found = on_ray(str(archive), "--out", str(out), "--kill", killed)
    assert found["killed"], found
    assert "Task MapWorker" in found["stderr"]  # what Ray says of it, and not on standard output
    assert found["status"] == 1
    assert files_of(out) == alone  # masks, log and summary, bit for bit
    rows = table_of(out)
    assert [json.loads(row["line"]) for row in rows] == [*map(json.loads, alone[LOG].splitlines()[1:])]


def test_a_stopped_run_goes_on_and_stores_are_read(
    on_ray: Callable[..., dict[str, Any]], archive: Path, tmp_path: Path, alone: dict[str, bytes]
) -> None:
    out, uri = tmp_path / "out", f"file://{archive}"
    assert on_ray(uri, "--out", str(out))["status"] == 1
    whole = files_of(out)
    masks = {name: data for name, data in alone.items() if name.startswith("masks/")}
    assert {name: data for name, data in whole.items() if name.startswith("masks/")} == masks
    texts = {name: data.replace(uri.encode(), str(archive).encode()) for name, data in whole.items()}
    assert texts == alone  # but for the names of the files
    kept = whole[LOG].splitlines(keepends=True)[:30]
    (out / LOG).write_bytes(b"".join(kept) + b'{"half')
    again = on_ray(uri, "--out", str(out), "--resume")
    assert "28 of 60 files are done already" in again["stderr"]  # 29 lines, one of them the damaged file's
    resumed = files_of(out)
    assert sorted(resumed[LOG].splitlines()) == sorted(whole[LOG].splitlines())  # names, too
    assert {name: data for name, data in resumed.items() if name.startswith("masks/")} == {
        name: data for name, data in whole.items() if name.startswith("masks/")
    }
