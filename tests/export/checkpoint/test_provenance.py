import subprocess
from pathlib import Path

import pytest

from tumorseg_export.checkpoint.provenance import git_commit, installed_versions, origin_of
from tumorseg_train.networks.run import Run


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def package_in(repository: Path, path: str) -> Path:
    """A folder with one committed file, at `path` of a new repository."""
    folder = repository / path
    folder.mkdir(parents=True)
    (folder / "code.py").write_text("one = 1\n")
    git(repository, "init", "--quiet")
    return folder


@pytest.mark.process
def test_commit_of_the_source_tree_and_whether_it_was_changed(tmp_path: Path) -> None:
    folder = package_in(tmp_path, "export/tumorseg_export")
    assert git_commit(folder) is None, "nothing is committed yet"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_commit(folder) == {"commit": commit, "changed": False}
    (folder / "code.py").write_text("one = 2\n")
    assert git_commit(folder) == {"commit": commit, "changed": True}


@pytest.mark.process
def test_another_projects_commit_is_not_ours(tmp_path: Path) -> None:
    folder = package_in(tmp_path, ".venv/lib/tumorseg_export")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "theirs")
    assert git_commit(folder) is None


def test_origin_is_a_function_of_the_run(tiny_run: Run) -> None:
    origin = origin_of(tiny_run)
    assert origin == origin_of(Run.open(tiny_run.root))
    assert origin["checkpoint_sha256"] == tiny_run.checkpoint_sha256
    assert not any("/" in value for value in origin.values())


def test_versions_name_what_made_the_bundle() -> None:
    assert {"tumorseg", "torch", "onnx", "onnxscript", "numpy"} <= installed_versions().keys()
