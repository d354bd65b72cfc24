"""Changed bundles through every door, every bit of the index, and files that are replaced meanwhile."""

from __future__ import annotations

import functools
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from click.testing import CliRunner

from reliability.bundles import choices, make_bundle, pictures
from reliability.damage import DAMAGES, turn_bit
from reliability.row import Settings, Tally
from tumorseg_runtime.bundle.bundle import INDEX, INDEX_HASH, Bundle
from tumorseg_runtime.bundle.seal import BESIDE
from tumorseg_runtime.core.errors import TumorsegError
from tumorseg_runtime.inference.segmenter import Segmenter


def doors(root: Path, scratch: Path) -> dict[str, Callable[[], object]]:
    """Everything that opens a bundle."""
    from tumorseg_benchmarks.commands.parity import parity
    from tumorseg_export.commands.build import build
    from tumorseg_runtime.cli.bundle_archive import bundle
    from tumorseg_runtime.cli.predict import predict
    from tumorseg_runtime.cli.store import install
    from tumorseg_runtime.cli.verify import verify

    def run(command: object, *arguments: object) -> None:
        result = CliRunner().invoke(command, [str(one) for one in arguments])  # type: ignore[arg-type]
        if isinstance(result.exception, SystemExit) or result.exception is None:
            if result.exit_code:
                raise AssertionError(f"exit status {result.exit_code}: {result.output[-200:]}")
            return
        raise result.exception

    image = scratch / "image.png"
    if not image.exists():
        shutil.copyfile(root / "golden/gray.png", image)
    found = {
        f"open {backend} {precision}": functools.partial(
            Segmenter.open, root, backend=backend, precision=precision
        )
        for backend, precision in choices(Bundle.open(root))
    }
    return {
        **found,
        "verify": lambda: run(verify, root),
        "install": lambda: run(install, scratch / "store", root),
        "predict": lambda: run(predict, root, image, "--out", scratch / "out"),
        "build": lambda: run(build, root, "--device-folder", scratch / "device"),
        "parity": lambda: run(parity, root, "--out", scratch / "parity"),
        "pack": lambda: run(bundle, "pack", root, "--out", scratch / "x.zip"),
    }


def tampered(settings: Settings, tally: Tally) -> None:
    """Each file in each way, then single bits anywhere; each change through each door, all must refuse."""
    good = make_bundle(settings.folder / "good")
    root, draw = settings.folder / "bundle", settings.draw("tampered")
    through = doors(good, settings.folder)
    through = doors(Path(shutil.copytree(good, root)), settings.folder)
    names = sorted(path.relative_to(good).as_posix() for path in good.rglob("*") if path.is_file())
    changes: list[tuple[str, str]] = [(name, damage) for name in names for damage in DAMAGES]
    wanted = settings.count(150, 2000)
    draw.shuffle(changes)
    changes = changes[:wanted]
    while len(changes) < wanted:
        changes.append((draw.choice(names), "bit"))
    tally.add("files", len(names))
    tally.add("doors", len(through))
    for name, damage in changes:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(good, root)
        what = f"{name} {damage}"
        if damage == "bit":
            what += " " + turn_bit(root / name, draw)
        else:
            DAMAGES[damage](root / name)
        tally.add("changes")
        # what lies beside the index may be gone, or say more than the hash: nothing that is used has changed
        harmless = name in BESIDE and damage in ("missing", "longer", "bit")
        for door, use in through.items():
            if harmless and not door.startswith("open"):
                continue
            if tally.attempt(f"{what} through {door}", use) and not harmless:
                tally.fault(f"{what} passed through {door}")


def index_bits(settings: Settings, tally: Tally) -> None:
    """Every bit of the index turned, with its hash beside it (all must be refused) and without."""
    root = make_bundle(settings.folder / "bundle")
    good, hash_text = (root / INDEX).read_bytes(), (root / INDEX_HASH).read_bytes()
    step = settings.count(1, 8)  # bits of each byte
    draw = settings.draw("index")
    for at in range(len(good)):
        for bit in draw.sample(range(8), min(step, 8)):
            data = bytearray(good)
            data[at] ^= 1 << bit
            (root / INDEX).write_bytes(data)
            tally.add("bits")
            if tally.attempt(f"bit {bit} of byte {at}", lambda: Bundle.read_index(root)):
                tally.fault(f"bit {bit} of byte {at} of the index was accepted")
            (root / INDEX_HASH).unlink()
            try:
                Bundle.read_index(root)
                tally.add("accepted without bundle.json.sha256 (said in docs/bundle.md)")
            except TumorsegError:
                tally.add("refused without bundle.json.sha256")
            (root / INDEX_HASH).write_bytes(hash_text)


def replaced(settings: Settings, tally: Tally) -> None:
    """A thread changes a file for ever while the bundle is opened: what serves is always the sealed one."""
    good = make_bundle(settings.folder / "good")
    root = Path(shutil.copytree(good, settings.folder / "bundle"))
    image = pictures(1)[0]
    stop = threading.Event()
    forged = (good / "model.deploy.onnx").read_bytes()  # a whole network, of another form
    cases = {"model.onnx": forged, "golden/gray.png": b"x", INDEX: (good / INDEX).read_bytes() + b" "}
    expected = Segmenter.open(good).predict(image).masks

    def swap() -> None:
        while not stop.is_set():
            for name, bad in cases.items():
                for data in (bad, (good / name).read_bytes()):  # another content for a moment
                    part = root.with_name("part")
                    part.write_bytes(data)
                    os.replace(part, root / name)
                time.sleep(0.002)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for number in range(settings.count(100, 3000)):
            try:
                segmenter = Segmenter.open(root)
            except TumorsegError as error:
                tally.add("refused")
                tally.demand("\n" not in str(error), f"open {number}: {error}")
            else:
                tally.add("served")
                same = np.array_equal(segmenter.predict(image).masks, expected)
                tally.demand(same, f"open {number} serves another network")
    finally:
        stop.set()
        thread.join()
