"""Whatever is damaged in a store: installing a good bundle puts it right, and nothing of a device is lost."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from reliability.damage import DAMAGES
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BundleError, InputError
from tumorseg_runtime.deployment.store import (
    ACTIVE,
    BUNDLES,
    LOCK,
    install,
    open_active,
    read_active,
    roll_back,
)
from tumorseg_runtime.device.cache import beside

pytestmark = pytest.mark.fault


def no_test(_: Bundle) -> None:
    pass


@pytest.fixture(scope="module")
def sources(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("sources")
    return [make_bundle(root / f"source {i}", golden_error=i * 1e-5) for i in range(3)]


@pytest.fixture(scope="module")
def template(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two bundles, the second of which serves."""
    store = tmp_path_factory.mktemp("template") / "store"
    for source in sources[:2]:
        install(store, source, test=no_test)
    return store


@pytest.fixture
def store(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "store"))


def digest_of(root: Path) -> str:
    return Bundle.read_index(root).digest()


@pytest.mark.slow
def test_every_file_damaged_in_every_way(template: Path, sources: list[Path], tmp_path: Path) -> None:
    files = [path.relative_to(template) for path in sorted(template.rglob("*")) if path.is_file()]
    digests = [digest_of(source) for source in sources]
    assert len(files) > 10
    for file in files:
        for name, damage in DAMAGES.items():
            for again in (1, 2):  # the bundle that was damaged may be the one that is installed, or another
                store = Path(shutil.copytree(template, tmp_path / "store"))
                damage(store / file)
                install(store, sources[again], test=no_test)
                assert open_active(store).digest() == digests[again], (file, name)
                if (
                    again == 2 or digests[0] not in file.parts
                ):  # else the only other bundle is the damaged one
                    assert roll_back(store).digest() in digests, (file, name)
                assert Bundle.open(open_active(store).root)
                shutil.rmtree(store)


@pytest.mark.parametrize("text", ["", "{", "{}", '{"current":5,"previous":null}', "[]", "[" * 100_000])
def test_rollback_and_install_without_a_readable_pointer(store: Path, sources: list[Path], text: str) -> None:
    (store / ACTIVE).write_text(text)
    with pytest.raises(BundleError):
        open_active(store)
    assert roll_back(store).digest() in map(digest_of, sources[:2])
    (store / ACTIVE).write_text(text)
    install(store, sources[2], test=no_test)
    assert open_active(store).digest() == digest_of(sources[2])
    assert roll_back(store).digest() in map(digest_of, sources[:2])


def test_rollback_works_while_one_bundle_is_whole(store: Path, sources: list[Path]) -> None:
    install(store, sources[2], test=no_test)
    (store / BUNDLES / digest_of(sources[2]) / "model.onnx").write_bytes(b"x")
    shutil.copytree(sources[0], store / BUNDLES / digest_of(sources[0]))
    shutil.rmtree(store / BUNDLES / digest_of(sources[1]))  # the one that served before
    assert roll_back(store).digest() == digest_of(sources[0])


def test_what_the_device_made_is_kept_and_strays_do_no_harm(store: Path, sources: list[Path]) -> None:
    engine = beside(open_active(store)) / "x.engine"
    engine.parent.mkdir(parents=True)
    engine.write_bytes(b"hours of building")
    (store / BUNDLES / ".DS_Store").write_text("x")
    (store / BUNDLES / "link").symlink_to("/tmp")
    for source in (sources[1], sources[2], sources[0]):
        install(store, source, test=no_test)
    assert engine.read_bytes() == b"hours of building"
    assert (store / BUNDLES / "link").is_symlink()


@pytest.mark.parametrize("stop", [BundleError("refused"), KeyboardInterrupt()])
def test_a_copy_that_is_refused_or_interrupted_is_removed_at_once(
    store: Path, sources: list[Path], stop: BaseException
) -> None:
    def test(_: Bundle) -> None:
        raise stop

    with pytest.raises(type(stop)):
        install(store, sources[2], test=test)
    assert {path.name for path in (store / BUNDLES).iterdir()} == set(map(digest_of, sources[:2]))


def test_what_is_not_listed_or_too_large_is_never_copied(
    store: Path, sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tumorseg_runtime.deployment import store as module

    monkeypatch.setattr(module, "_copy", lambda *_: pytest.fail("it was copied"))
    for name in ("junk", "bundle.json.sig", "model.onnx"):
        source = Path(shutil.copytree(sources[2], tmp_path / name))
        with (source / name).open("ab") as file:
            file.truncate(200 * 2**20)
        with pytest.raises(BundleError, match=name):
            install(store, source, test=no_test)


def test_no_link_is_followed_when_the_store_is_written(
    store: Path, sources: list[Path], tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    part = f".{ACTIVE}.{os.getpid()}-{threading.get_ident()}.part"
    for name in (LOCK, part):
        (store / name).symlink_to(victim)
    install(store, sources[2], test=no_test)
    assert victim.read_text() == "precious"
    assert not (store / ACTIVE).is_symlink()
    (store / ACTIVE).unlink()
    (store / ACTIVE).symlink_to(victim)
    install(store, sources[1], test=no_test)
    assert victim.read_text() == "precious"
    active = read_active(store)
    assert active is not None
    assert active.current == digest_of(sources[1])


def test_a_store_inside_of_the_bundle_is_refused_before_anything_is_made(sources: list[Path]) -> None:
    with pytest.raises(InputError, match="lies in the bundle"):
        install(sources[0] / "store", sources[0], test=no_test)
    assert Bundle.open(sources[0])
