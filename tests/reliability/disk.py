"""Disks that are full, run out of names, are read-only or over their quota, and files that vanish."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from reliability.bundles import make_bundle, write_pictures
from reliability.row import CLI, NotPossibleError, Settings, Tally, tumorseg
from tumorseg_runtime.bundle.archive import pack
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BundleError
from tumorseg_runtime.deployment.store import install, open_active

MOUNT = """
import subprocess, sys
options, place, template, after, *command = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
subprocess.run(["cp", "-a", template + "/.", place], check=True)
if after:
    subprocess.run(["mount", "-o", after, place], check=True)
done = subprocess.run(command, capture_output=True, text=True)
subprocess.run(["cp", "-a", place, template + ".left"], check=True)
sys.stderr.write(done.stderr)
sys.exit(done.returncode if done.returncode >= 0 else 99)
"""
NAMESPACE = ("unshare", "--mount", "--map-root-user")
QUOTA = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2); "


def bad_disks(settings: Settings, tally: Tally) -> None:
    """Install, predict, pack and unpack on disks of every size; what served serves."""
    if shutil.which("unshare") is None or subprocess.run([*NAMESPACE, "true"], check=False).returncode:
        raise NotPossibleError("unshare may not make a mount namespace here")
    sources = [make_bundle(settings.folder / f"source {n}", f"bundle {n}") for n in range(2)]
    images = write_pictures(settings.folder / "images", 3)
    archive = settings.folder / "x.zip"
    pack(sources[0], archive)
    place, template = settings.folder / "place", settings.folder / "template"
    place.mkdir()
    install(template / "store", sources[0], test=lambda bundle: None)
    digests = {Bundle.read_index(source).digest() for source in sources}
    commands = {
        "install": ("install", place / "store", sources[1]),
        "predict": ("predict", sources[0], images, "--out", place / "out", "--probabilities"),
        "unpack": ("bundle", "unpack", archive, "--out", place / "bundle"),
        "pack": ("bundle", "pack", sources[0], "--out", place / "new.zip"),
    }
    used = sum(path.stat().st_size + 4096 for path in template.rglob("*"))
    disks = {"read-only": ("size=4m", "remount,ro")}
    draw = settings.draw("disks")
    for number in range(settings.count(3, 25)):
        disks[f"full {number}"] = (f"size={used + draw.randrange(4096, 400_000)}", "")
        disks[f"names {number}"] = (f"size=4m,nr_inodes={draw.randrange(30, 75)}", "")
    for name, arguments in commands.items():
        for disk, (options, after) in disks.items():
            python = (sys.executable, "-c")
            command = [*python, CLI, *map(str, arguments)]
            done = subprocess.run(
                [*NAMESPACE, *python, MOUNT, options, str(place), str(template), after, *command],
                capture_output=True, text=True, check=False, timeout=900,
            )  # fmt: skip
            tally.add("commands")
            left = template.with_name("template.left")
            if not left.exists():
                tally.add("disks too small to begin with")
                continue
            check(tally, f"{name}, {disk} ({options})", done, left, place, digests)
            shutil.rmtree(left)
    quotas(settings, tally, sources, images)


def check(
    tally: Tally,
    what: str,
    done: subprocess.CompletedProcess[str],
    left: Path,
    place: Path,
    digests: set[str],
) -> None:
    """A command ended well or in one line; what it left is whole."""
    well = tally.ended(what, done)
    store = open_active(left / "store").digest()
    tally.demand(store in digests, f"{what}: the store serves {store}")
    try:
        if (left / "bundle").exists():
            Bundle.open(left / "bundle")
    except BundleError as error:
        tally.fault(f"{what}: half a bundle was left: {error}")
    log = left / "out/predictions.jsonl"
    lines = log.read_bytes().splitlines(keepends=True) if log.is_file() else []
    for line in lines[: None if well else -1]:  # the last may be half of one, which --resume knows
        entry = json.loads(line)
        for mask in entry.get("masks", {}).values():
            tally.demand((left / "out" / mask).stat().st_size > 0, f"{what}: {mask} is empty and in the log")


def quotas(settings: Settings, tally: Tally, sources: list[Path], images: Path) -> None:
    """A limit on the size of a file, as a quota ends a write half way."""
    store = settings.folder / "quota"
    install(store, sources[0], test=lambda bundle: None)
    before = open_active(store).digest()
    for limit in settings.draw("quota").sample(range(1, 9000), settings.count(2, 20)):
        for name, arguments in (
            ("install", ("install", store, sources[1])),
            ("predict", ("predict", sources[0], images, "--out", settings.folder / "quota out")),
        ):
            done = subprocess.run(
                [sys.executable, "-c", QUOTA + CLI, str(limit), *map(str, arguments)],
                capture_output=True, text=True, check=False, timeout=900,
            )  # fmt: skip
            tally.add("commands")
            tally.ended(f"{name}, files of at most {limit} bytes", done)
        after = open_active(store).digest()
        tally.demand(after == before or limit > 8000, f"the store serves {after} after a limit of {limit}")
        install(store, sources[0], test=lambda bundle: None)


def vanishing(settings: Settings, tally: Tally) -> None:
    """Images, outputs and files of the bundle are removed while `predict` runs."""
    source = make_bundle(settings.folder / "source")
    draw = settings.draw("vanishing")
    for number in range(settings.count(2, 15)):
        images = write_pictures(settings.folder / f"images {number}", 40)
        root = Path(shutil.copytree(source, settings.folder / f"bundle {number}"))
        out, stop = settings.folder / f"out {number}", threading.Event()
        thread = threading.Thread(target=_remove, args=((images, out, root), stop, draw))
        thread.start()
        done = tumorseg("predict", root, images, "--out", out)
        stop.set()
        thread.join()
        tally.add("commands")
        tally.ended(f"predict {number} with files that vanish", done)
        few = write_pictures(settings.folder / f"new {number}", 3)
        again = tumorseg("predict", source, few, "--out", out)
        tally.demand(again.returncode == 0, f"afterwards: {again.stderr[-200:]}")
        for log in out.glob("predictions.jsonl"):
            tally.demand(all(map(json.loads, log.read_text().splitlines())), "a line of the log is no object")


def _remove(folders: tuple[Path, ...], stop: threading.Event, draw: random.Random) -> None:
    while not stop.wait(0.05):
        if found := [path for folder in folders for path in folder.rglob("*.*") if path.is_file()]:
            draw.choice(found).unlink(missing_ok=True)
