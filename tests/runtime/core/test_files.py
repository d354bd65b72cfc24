from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.files import locked, make_folder, write_bytes, write_text


def test_it_writes_and_replaces(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")
    write_text(tmp_path / "a", "neü")
    assert (tmp_path / "a").read_bytes() == "neü".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes(tmp_path / "a", b"old")

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
        write_bytes(tmp_path / "a", b"something new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_the_file_itself_is_only_ever_renamed_into_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    real = Path.write_bytes

    def noted(self: Path, data: bytes) -> int:
        written.append(self)
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", noted)
    write_bytes(tmp_path / "a", b"data")
    (part,) = written
    assert part != tmp_path / "a"
    assert part.parent == tmp_path
    assert (tmp_path / "a").read_bytes() == b"data"


def test_places_that_cannot_be_written_are_input_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be written"):
        write_bytes(tmp_path / "missing" / "a", b"x")
    with pytest.raises(InputError, match="cannot be made"):
        make_folder(tmp_path / "file" / "folder")
    make_folder(tmp_path / "new" / "folder")
    make_folder(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder").is_dir()


def test_a_lock_keeps_others_out_and_leaves_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locked(lock, tmp_path):  # noqa: SIM117
        with pytest.raises(InputError, match=f"process {os.getpid()} is changing it"), locked(lock, tmp_path):
            raise AssertionError("two at once")
    assert not lock.exists()
    with locked(lock, tmp_path, wait=True):
        assert lock.exists()


@pytest.mark.fault
@pytest.mark.process
def test_left_overs_of_dead_processes_go(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    locked_part, others = f".b.{dead.pid}-1.part", [f".a.{os.getpid()}-1.part", ".a.part", "a"]
    for name in (f".a.{dead.pid}-1.part", locked_part, *others):
        (tmp_path / name).write_bytes(b"")
    with (tmp_path / locked_part).open() as held:  # its writer has this number in another container
        fcntl.flock(held, fcntl.LOCK_EX)
        write_bytes(tmp_path / "new", b"x")
    assert sorted(os.listdir(tmp_path)) == [*others[:1], ".a.part", locked_part, "a", "new"]


@pytest.mark.fault
@pytest.mark.process
def test_what_a_killed_process_had_begun_goes_with_the_next_write(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from tumorseg_runtime.core.files import writing\n"
        "with writing(sys.argv[1]): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=False).returncode == -9
    assert len(os.listdir(tmp_path)) == 1
    write_bytes(tmp_path / "b", b"x")
    assert os.listdir(tmp_path) == ["b"]


def test_a_file_and_its_name_are_brought_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (synced.append(os.readlink(f"/proc/self/fd/{handle}")), real(handle))
    )
    write_bytes(tmp_path / "a", b"x", durable=False)
    assert synced == []
    write_bytes(tmp_path / "a", b"x")
    assert [Path(one).name.startswith(".a.") for one in synced] == [True, False]
    assert synced[1] == str(tmp_path)


@pytest.mark.fault
@pytest.mark.process
def test_a_log_on_a_full_disk_is_one_error_and_holds_whole_lines(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from tumorseg_runtime.core.files import Log\n"
        "from tumorseg_runtime.core.errors import InputError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (250, 250)); log = Log(Path(sys.argv[1]))\n"
        "for number in range(9):\n"
        "    try: log.append('x' * 99 + '\\n')\n"
        "    except InputError as error: print(number, error)\n"
        "log.close()"
    )
    path = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"2 {path}: cannot be written (File too large)")
    assert path.read_bytes() == b"x" * 99 + b"\n" + b"x" * 99 + b"\n"
