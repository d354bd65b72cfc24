"""A store is killed at every step of every operation and must serve a tested bundle afterwards."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.cli import store as commands
from tumorseg_runtime.core.errors import BundleError, InputError, ParityError
from tumorseg_runtime.deployment.store import ACTIVE, BUNDLES, install, open_active, read_active, roll_back

pytestmark = pytest.mark.fault

Maker = Callable[..., Path]


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def bundles(make_bundle: Maker, tmp_path: Path) -> list[Path]:
    """Three bundles that differ, all of which pass the self-test."""
    return [make_bundle(tmp_path / f"source {i}", golden_error=i * 1e-5) for i in range(3)]


def no_test(_: Bundle) -> None:
    pass


def digest_of(root: Path) -> str:
    return Bundle.open(root).digest()


@pytest.mark.usefixtures("few_conformance_files")
def test_install_serves_and_keeps_the_one_before(bundles: list[Path], tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(BundleError, match="no bundle is installed there"):
        open_active(store)
    for index, source in enumerate(bundles):
        done = install(store, source)
        assert done.digest() == open_active(store).digest() == digest_of(source)
        active = read_active(store)
        assert active is not None
        assert active.previous == (digest_of(bundles[index - 1]) if index else None)
    names = {path.name for path in (store / BUNDLES).iterdir()}
    assert names == {digest_of(bundles[1]), digest_of(bundles[2])}  # the oldest is gone


def test_roll_back_and_forth(bundles: list[Path], tmp_path: Path) -> None:
    store = tmp_path / "store"
    install(store, bundles[0], test=no_test)
    with pytest.raises(BundleError, match="no earlier bundle to go back to"):
        roll_back(store)
    install(store, bundles[1], test=no_test)
    for expected in (0, 1, 0):
        assert roll_back(store).digest() == open_active(store).digest() == digest_of(bundles[expected])


@pytest.mark.usefixtures("few_conformance_files")
def test_a_bundle_that_fails_its_test_never_serves(
    bundles: list[Path], make_bundle: Maker, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    install(store, bundles[0])
    wrong = make_bundle(tmp_path / "wrong", golden_error=0.5)
    with pytest.raises(ParityError, match="must not serve"):
        install(store, wrong)
    broken = Path(shutil.copytree(bundles[1], tmp_path / "broken"))
    (broken / "model.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match="not as it was sealed"):
        install(store, broken)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BundleError, match=r"has no bundle.json"):
        install(store, empty)
    assert open_active(store).digest() == digest_of(bundles[0])
    install(store, bundles[1])
    assert not [path for path in (store / BUNDLES).iterdir() if path.name.startswith(".")]


def test_installing_the_same_again_tests_it_and_changes_nothing(bundles: list[Path], tmp_path: Path) -> None:
    store = tmp_path / "store"
    install(store, bundles[0], test=no_test)
    install(store, bundles[1], test=no_test)
    before = read_active(store)
    tested: list[str] = []
    install(store, bundles[1], test=lambda bundle: tested.append(bundle.digest()))
    assert read_active(store) == before
    assert tested == [digest_of(bundles[1])]


def test_a_bundle_damaged_on_the_disk_is_noticed_and_can_be_replaced(
    bundles: list[Path], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    install(store, bundles[0], test=no_test)
    install(store, bundles[1], test=no_test)
    (store / BUNDLES / digest_of(bundles[1]) / "model.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match="not as it was sealed"):
        open_active(store)
    assert roll_back(store).digest() == digest_of(bundles[0])
    with pytest.raises(BundleError, match="not as it was sealed"):
        roll_back(store)
    assert open_active(store).digest() == digest_of(bundles[0])
    install(store, bundles[1], test=no_test)
    assert open_active(store).digest() == digest_of(bundles[1])


def test_one_process_at_a_time(bundles: list[Path], tmp_path: Path) -> None:
    store = tmp_path / "store"

    def meanwhile(_: Bundle) -> None:
        for change in (lambda: install(store, bundles[1], test=no_test), lambda: roll_back(store)):
            with pytest.raises(
                InputError, match=f"store: process {os.getpid()} is changing it, expected to be alone"
            ):
                change()

    install(store, bundles[0], test=meanwhile)
    assert open_active(store).digest() == digest_of(bundles[0])


STEPS = (
    (Path, "mkdir"), (Path, "write_bytes"), (shutil, "rmtree"), (os, "fsync"), (Path, "rename"),
    (Path, "replace"),
)  # fmt: skip


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], list[str]]]:
    """Function that arms a kill at the nth step on the disk, before or after it is done (odd numbers), or
    half way through it where it has a half; returns the list of the steps that were taken. No step is taken
    after it: a process that is dead cleans nothing up."""

    def arm(number: int) -> list[str]:
        taken: list[str] = []
        dead: list[bool] = []

        def wrap(real: Any, name: str) -> Any:
            def step(*args: Any, **kwargs: Any) -> Any:
                if dead:
                    raise Killed
                taken.append(name)
                if len(taken) - 1 == number // 2:
                    if number % 2:
                        real(*args, **kwargs)
                    elif name == "write_bytes":
                        real(args[0], args[1][: len(args[1]) // 2])
                    elif name == "rmtree":
                        next(path for path in Path(args[0]).rglob("*") if path.is_file()).unlink()
                    dead.append(True)
                    raise Killed
                return real(*args, **kwargs)

            return step

        for holder, name in STEPS:
            monkeypatch.setattr(holder, name, wrap(getattr(holder, name), name))
        return taken

    yield arm
    monkeypatch.undo()


def run_until_killed(operation: Callable[[], object]) -> bool:
    try:
        operation()
    except Killed:
        return True
    return False


def test_killed_at_any_step_of_an_installation(
    bundles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: Callable[[int], list[str]]
) -> None:
    old, new = digest_of(bundles[1]), digest_of(bundles[2])
    template = tmp_path / "template"
    for source in bundles[:2]:
        install(template, source, test=no_test)
    seen, number, killed = set(), 0, True
    while killed:
        store = Path(shutil.copytree(template, tmp_path / f"store {number}"))
        taken = kill_at(number)
        killed = run_until_killed(lambda store=store: install(store, bundles[2], test=no_test))  # type: ignore[misc]
        monkeypatch.undo()
        serving = open_active(store).digest()  # every hash is checked
        assert serving in (old, new)
        seen.add((serving == new, killed))
        install(store, bundles[2], test=no_test)  # and the next one succeeds
        assert open_active(store).digest() == new
        assert roll_back(store).digest() == old
        assert not [path for path in (store / BUNDLES).iterdir() if path.name.startswith(".")]
        shutil.rmtree(store)
        number += 1
    assert seen == {(False, True), (True, True), (True, False)}
    assert {"mkdir", "write_bytes", "fsync", "rename", "replace", "rmtree"} <= set(taken)
    assert number > 20


@pytest.mark.slow
def test_killed_at_any_step_of_a_roll_back_and_of_the_first_installation(
    bundles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: Callable[[int], list[str]]
) -> None:
    template = tmp_path / "template"
    for source in bundles[:2]:
        install(template, source, test=no_test)
    number, killed = 0, True
    while killed:
        store = Path(shutil.copytree(template, tmp_path / f"store {number}"))
        kill_at(number)
        killed = run_until_killed(lambda store=store: roll_back(store))  # type: ignore[misc]
        monkeypatch.undo()
        assert open_active(store).digest() in map(digest_of, bundles[:2])
        number += 1
    assert number > 4
    number, killed = 0, True
    while killed:
        store = tmp_path / f"first {number}"
        kill_at(number)
        killed = run_until_killed(lambda store=store: install(store, bundles[0], test=no_test))  # type: ignore[misc]
        monkeypatch.undo()
        assert (store / ACTIVE).exists() <= (open_or_none(store) is not None)
        install(store, bundles[0], test=no_test)
        assert open_active(store).digest() == digest_of(bundles[0])
        number += 1


def open_or_none(store: Path) -> Bundle | None:
    try:
        return open_active(store)
    except BundleError as error:
        assert "no bundle is installed" in str(error)  # noqa: PT017
        return None


def test_a_full_disk_changes_nothing(
    bundles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    install(store, bundles[0], test=no_test)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("tumorseg_runtime.deployment.store.write_bytes", full)
        with pytest.raises(InputError, match=r"was not installed \(No space left on device\), what served"):
            install(store, bundles[1], test=no_test)
    assert open_active(store).digest() == digest_of(bundles[0])


def test_the_commands(bundles: list[Path], tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    for source in bundles[:2]:
        result = CliRunner().invoke(commands.install, [store, str(source)])
        assert result.exit_code == 0, result.output
        assert f"{digest_of(source)[:16]} serves from {store}" in result.output
    result = CliRunner().invoke(commands.rollback, [store])
    assert f"{digest_of(bundles[0])[:16]} serves again" in result.output
    unknown = CliRunner().invoke(commands.install, [store, str(bundles[1]), "--backend", "x"])
    assert isinstance(unknown.exception, InputError)
