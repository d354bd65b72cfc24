"""The wheel and the sdist are the same bytes wherever and whenever they are built."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="hatchling is not installed (extra dev)")
pytestmark = [pytest.mark.slow, pytest.mark.process]
ROOT = Path(__file__).parents[1]


def build(
    folder: Path, out: Path, files: list[str], *, age_s: int, mask: int, **environment: str
) -> dict[str, str]:
    """SHA-256 of the packages that are built of a copy of the files, by their names."""
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((ROOT / name).read_bytes())
        path.chmod(0o755 & ~mask if os.access(ROOT / name, os.X_OK) else 0o644 & ~mask)
        os.utime(path, (age_s, age_s))
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(out)], cwd=folder, capture_output=True,
        env={**os.environ, **environment}, preexec_fn=lambda: os.umask(mask), text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir()}


def test_built_twice_they_are_the_same_bytes(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git repository: which files belong to it is not known")
    files = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    first = build(tmp_path / "one", tmp_path / "out 1", files, age_s=10**9, mask=0o022, TZ="UTC", LC_ALL="C")
    again = build(
        tmp_path / "another/place", tmp_path / "out 2", files[::-1], age_s=1_700_000_000, mask=0o022,
        TZ="Asia/Kathmandu", LC_ALL="tr_TR.UTF-8", PYTHONHASHSEED="7",
    )  # fmt: skip
    assert len(first) == 2
    assert first == again
