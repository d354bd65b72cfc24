"""The power goes after every call that reaches the disk: no store is left that does not open."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from reliability.bundles import make_bundle
from reliability.damage import flip
from reliability.disk_trace import Disk, record
from reliability.row import Settings, Tally
from tumorseg_runtime.bundle.archive import pack
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BundleError
from tumorseg_runtime.deployment.store import BUNDLES, install, open_active, roll_back

INSTALL = """
import sys
from tumorseg_runtime.deployment.store import install, roll_back
if len(sys.argv) > 2:
    install(sys.argv[1], sys.argv[2], test=lambda bundle: None)
else:
    roll_back(sys.argv[1])
"""
UNPACK = """
import sys
from pathlib import Path
from tumorseg_runtime.bundle.archive import unpack
unpack(Path(sys.argv[2]), Path(sys.argv[1]) / "bundle")
"""
WRITE = """
import sys
from pathlib import Path
from tumorseg_runtime.core.files import write_bytes, write_text
write_bytes(Path(sys.argv[1]) / "file", b"new" * 5000)
write_text(Path(sys.argv[1]) / "file", "newer" * 5000)
"""
WAYS = ("all", "certain", "some")


def power_cuts(settings: Settings, tally: Tally) -> None:
    """Installations, a roll-back, an unpacking and a file, cut after each call in several ways."""
    sources = [make_bundle(settings.folder / f"source {n}", f"bundle {n}") for n in range(3)]
    digests = [Bundle.read_index(source).digest() for source in sources]

    def served(before: set[str], store: Path) -> None:
        """A store opens what was installed; afterwards it installs and goes back."""
        serving = open_active(store).digest()
        if serving not in before:
            raise AssertionError(f"{serving} serves")
        install(store, sources[2], test=lambda bundle: None)
        if open_active(store).digest() != digests[2] or roll_back(store).digest() not in before | set(
            digests
        ):
            raise AssertionError("the next installation does not serve, or there is no way back")

    def first(store: Path) -> None:
        try:
            served({digests[0]}, store)
        except BundleError as error:
            if "no bundle is installed" not in str(error):
                raise
            install(store, sources[0], test=lambda bundle: None)

    def unpacked(folder: Path) -> None:
        if (folder / "bundle").exists():
            Bundle.open(folder / "bundle")

    def written(folder: Path) -> None:
        if (folder / "file").read_bytes() not in (b"old", b"new" * 5000, b"newer" * 5000):
            raise AssertionError("the file is neither the old one nor the new one")

    two = settings.folder / "two"
    for source in sources[:2]:
        install(two, source, test=lambda bundle: None)
    damaged = Path(shutil.copytree(two, settings.folder / "damaged"))
    flip(damaged / BUNDLES / digests[1] / "model.onnx")
    empty, old = settings.folder / "empty", settings.folder / "old"
    empty.mkdir()
    old.mkdir()
    (old / "file").write_bytes(b"old")
    archive = settings.folder / "x.zip"
    pack(sources[0], archive)
    both = set(digests[:2])
    operations: dict[str, tuple[str, list[Path], Path, Callable[[Path], object]]] = {
        "first installation": (INSTALL, [sources[0]], empty, first),
        "installation": (INSTALL, [sources[2]], two, lambda store: served({*both, digests[2]}, store)),
        "roll-back": (INSTALL, [], two, lambda store: served(both, store)),
        "unpacking": (UNPACK, [archive], empty, unpacked),
        "file": (WRITE, [], old, written),
        "repair": (INSTALL, [sources[1]], damaged, lambda store: repaired(store, sources[1], digests[1])),
    }
    for name, (code, arguments, template, check) in operations.items():
        cut(settings, tally, name, code, [str(one) for one in arguments], template, check)


def repaired(store: Path, source: Path, digest: str) -> None:
    """Cut while it was put right: the same installation again puts it right."""
    install(store, source, test=lambda bundle: None)
    if open_active(store).digest() != digest:
        raise AssertionError("the installation does not serve")


def cut(
    settings: Settings, tally: Tally, name: str, code: str, arguments: list[str], template: Path,
    check: Callable[[Path], object],
) -> None:  # fmt: skip
    """Record an operation on a copy of the template, and replay every prefix of it."""
    live = Path(shutil.copytree(template, settings.folder / "live"))
    steps = record(code, [str(live), *arguments], live, settings.folder / "trace")
    draw, disk, left = settings.draw(name), Disk(template), settings.folder / "left"
    disk.root = str(live)
    tally.add("operations")
    for number, step in enumerate([None, *steps]):
        if step is not None:
            disk.take(step)
        tally.add("prefixes")
        for how in WAYS + ("some",) * (settings.count(1, 8) - 1):
            disk.after_power_cut(left, draw, how)
            tally.add("power cuts")
            try:
                check(left)
            except Exception as error:  # noqa: BLE001  # this is what is looked for
                where = f"{name}, after step {number} ({step and step.kind}), {how}"
                tally.fault(f"{where}: {type(error).__name__}: {error}")
            shutil.rmtree(left)
    final = settings.folder / "final"
    disk.after_power_cut(final, draw, "all")
    same = {p.relative_to(live): p.read_bytes() for p in live.rglob("*") if p.is_file()} == {
        p.relative_to(final): p.read_bytes() for p in final.rglob("*") if p.is_file()
    }
    tally.demand(same, f"{name}: the replay ends with other files than the operation left")
    shutil.rmtree(final)
    shutil.rmtree(live)
