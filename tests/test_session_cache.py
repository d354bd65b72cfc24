"""What is kept on disk is never a damaged, half-made or foreign entry."""

from __future__ import annotations

from pathlib import Path

import pytest

import session_cache
from session_cache import FILES, LIST, kept


class Maker:
    """Writes one file, and counts how often it is asked to."""

    def __init__(self) -> None:
        self.calls = 0

    def make(self, folder: Path) -> None:
        self.calls += 1
        (folder / "sub").mkdir()
        (folder / "sub/file").write_text("content")


@pytest.fixture
def ask(tmp_path: Path) -> tuple[Maker, Path]:
    """A maker whose entry has been made, and the entry."""
    maker = Maker()
    copy = kept("x", tmp_path / "first", maker.make, cache=tmp_path / "cache")
    assert (copy / "sub/file").read_text() == "content"
    (entry,) = (tmp_path / "cache/x").iterdir()
    return maker, entry


def again(maker: Maker, tmp_path: Path) -> int:
    copy = kept("x", tmp_path / "second", maker.make, cache=tmp_path / "cache")
    assert [path.read_text() for path in copy.rglob("*") if path.is_file()] == ["content"]
    return maker.calls


def test_an_entry_is_made_once_and_a_copy_may_be_changed(ask: tuple[Maker, Path], tmp_path: Path) -> None:
    (tmp_path / "first/sub/file").write_text("changed by a test")
    assert again(ask[0], tmp_path) == 1


@pytest.mark.fault
@pytest.mark.parametrize("damage", ["changed", "missing", "added", "no list", "half a list"])
def test_a_damaged_entry_is_made_again(ask: tuple[Maker, Path], tmp_path: Path, damage: str) -> None:
    maker, entry = ask
    match damage:
        case "changed":
            (entry / FILES / "sub/file").write_text("c0ntent")
        case "missing":
            (entry / FILES / "sub/file").unlink()
        case "added":
            (entry / FILES / "more").write_text("")
        case "no list":
            (entry / LIST).unlink()
        case "half a list":
            (entry / LIST).write_text((entry / LIST).read_text()[:9])
    assert again(maker, tmp_path) == 2


def test_an_entry_of_other_source_is_not_used_and_goes(
    ask: tuple[Maker, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, entry = ask
    monkeypatch.setattr(session_cache, "_key", lambda maker, about: "another state of the source")
    assert again(maker, tmp_path) == 2
    assert not entry.exists()


def test_the_key_follows_source_packages_and_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def key(about: str = "") -> str:
        return session_cache._key.__wrapped__(str(maker), about)

    maker = tmp_path / "conftest.py"
    maker.write_text("a = 1")
    keys = [key(), key(), key("more")]
    maker.write_text("a = 2")
    keys.append(key())
    monkeypatch.setenv("OMP_NUM_THREADS", "17")
    keys.append(key())
    source = session_cache._source_of("tumorseg_train")
    assert any(path.suffix == ".toml" for path in source), "recipes are source, too"
    monkeypatch.setattr(session_cache, "_source_of", lambda package: source)
    keys.append(key())
    monkeypatch.setattr(session_cache, "distributions", list)
    keys.append(key())
    assert keys[0] == keys[1]
    assert len(set(keys)) == 6
