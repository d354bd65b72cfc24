import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tumorseg_export.bundle.staging import new_bundle_folder
from tumorseg_runtime.bundle.bundle import INDEX, Bundle, FileRecord, sha256_of
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError

pytestmark = [pytest.mark.process, pytest.mark.fault]


def write_bundle(root: Path, text: str) -> None:
    """A sealed bundle with one file and no artefact."""
    root.mkdir(exist_ok=True)
    (root / "card.md").write_text(text)
    files = {"card.md": FileRecord(sha256_of(root / "card.md"), len(text))}
    bundle = Bundle(root, "tiny", Contract(), (), (), files, {}, {}, {})
    (root / INDEX).write_text(bundle.to_index())


def silent(line: str) -> None:
    raise AssertionError(f"nothing was left over, but it said: {line}")


def replace_and(act: Callable[[], object], out: Path) -> None:
    """Export "new" to `out`, and act before the end."""
    with new_bundle_folder(out, silent) as folder:
        write_bundle(folder, "new")
        act()


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_folder_appears_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "bundle"
    with new_bundle_folder(out, silent) as folder:
        write_bundle(folder, "new")
        assert not out.exists()
    assert Bundle.open(out).name == "tiny"
    assert os.listdir(out.parent) == ["bundle"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_interruption_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    out = tmp_path / "bundle"
    write_bundle(out, "old")

    def stop() -> None:
        raise error

    with pytest.raises(error):
        replace_and(stop, out)
    assert (Bundle.open(out).root / "card.md").read_text() == "old"
    assert os.listdir(tmp_path) == ["bundle"]


def test_old_bundle_is_replaced_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    write_bundle(out, "old")
    with new_bundle_folder(out, silent) as folder:
        write_bundle(folder, "new")
        assert (out / "card.md").read_text() == "old"
    assert (Bundle.open(out).root / "card.md").read_text() == "new"
    assert os.listdir(tmp_path) == ["bundle"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    write_bundle(tmp_path / "real", "old")
    (tmp_path / "latest").symlink_to("real")
    with new_bundle_folder(tmp_path / "latest", silent) as folder:
        write_bundle(folder, "new")
    assert (tmp_path / "latest").is_symlink()
    assert (tmp_path / "real" / "card.md").read_text() == "new"


def test_failed_second_rename_puts_the_old_bundle_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"
    write_bundle(out, "old")
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if ".part-" in self.name:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), new_bundle_folder(out, silent) as folder:
        write_bundle(folder, "new")
    assert (out / "card.md").read_text() == "old"
    assert os.listdir(tmp_path) == ["bundle"]


def test_killed_export_leaves_no_bundle_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    code = (
        "import sys, time; from pathlib import Path\n"
        "from tumorseg_export.bundle.staging import new_bundle_folder\n"
        "with new_bundle_folder(Path(sys.argv[1]), print) as folder:\n"
        "    (folder / 'model.onnx').write_bytes(b'half'); print('ready', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    with (
        pytest.raises(InputError, match=f"process {process.pid} is changing it"),
        new_bundle_folder(out, silent),
    ):
        raise AssertionError("two exports at once")

    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not out.exists()
    assert sorted(os.listdir(tmp_path)) == [".bundle.lock", f"bundle.part-{process.pid}"]
    said: list[str] = []
    with new_bundle_folder(out, said.append) as folder:
        write_bundle(folder, "new")
    assert said == [f"removed bundle.part-{process.pid}, the left-over of a killed export"]
    assert os.listdir(tmp_path) == ["bundle"]


def test_bundle_that_a_killed_export_had_moved_away_comes_back(tmp_path: Path) -> None:
    out, old = tmp_path / "bundle", tmp_path / f"bundle.old-{dead_pid()}"
    write_bundle(old, "old")
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), new_bundle_folder(out, said.append):
        raise KeyboardInterrupt
    assert (Bundle.open(out).root / "card.md").read_text() == "old"
    assert said == [f"put back the bundle that a killed export had moved to {old.name}"]


def test_only_left_overs_of_this_bundle_are_touched(tmp_path: Path) -> None:
    others = [f"bundle2.part-{dead_pid()}", "bundle.part-", "bundle.part-1x", "my.bundle.part-1"]
    for name in others:
        (tmp_path / name).mkdir()
    with new_bundle_folder(tmp_path / "bundle", silent) as folder:
        write_bundle(folder, "new")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "bundle"])


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with new_bundle_folder(tmp_path / "bundle", silent) as folder:
        write_bundle(folder, "new")
    Bundle.open(tmp_path / "bundle")


@pytest.mark.parametrize("name", ["notes.txt", INDEX])
def test_folder_that_is_no_bundle_is_refused(tmp_path: Path, name: str) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(InputError, match="is no bundle"), new_bundle_folder(out, silent):
        raise AssertionError("entered")
    assert (out / name).read_text() == "mine"


def test_bundle_with_a_file_of_the_users_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    write_bundle(out, "old")
    (out / "notes.txt").write_text("mine")
    with (
        pytest.raises(InputError, match=r"holds more than a bundle \(notes.txt\)"),
        new_bundle_folder(out, silent),
    ):
        raise AssertionError("entered")
    assert (out / "notes.txt").read_text() == "mine"


def test_a_file_that_came_while_exporting_is_not_lost(tmp_path: Path) -> None:
    out = tmp_path / "bundle"

    def interfere() -> None:
        out.mkdir()
        (out / "notes.txt").write_text("mine")

    with pytest.raises(InputError, match="is no bundle"):
        replace_and(interfere, out)
    assert (out / "notes.txt").read_text() == "mine"
    assert os.listdir(tmp_path) == ["bundle"]


def test_full_disk_is_said_as_such(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"bundle: cannot be written \(No space left on device\)"),
        new_bundle_folder(tmp_path / "bundle", silent),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert os.listdir(tmp_path) == []


def test_other_errors_of_the_system_are_not_disguised(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_bundle_folder(tmp_path / "bundle", silent) as folder:
        (folder / "absent").read_bytes()
    assert os.listdir(tmp_path) == []


def test_parent_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(InputError, match="cannot be written"),
        new_bundle_folder(tmp_path / "file" / "bundle", silent),
    ):
        raise AssertionError("entered")
