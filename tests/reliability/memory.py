"""Too little memory, too few descriptors: one line or the right masks, never others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from reliability.bundles import choices, make_bundle, write_pictures
from reliability.row import CLI, Settings, Tally
from tumorseg_runtime.bundle.bundle import Bundle

HANGS_S = 120  # after which a process says where it is; after twice as long it is ended
LIMIT = """
import faulthandler, resource, sys
faulthandler.dump_traceback_later(HANGS)
import cv2, numpy, tumorseg_runtime.cli.predict, tumorseg_runtime.inference.segmenter
kind, more = sys.argv.pop(1), int(sys.argv.pop(1))
if kind == "memory":
    lines = open("/proc/self/status").read().splitlines()
    size = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (size + more,) * 2)
else:
    resource.setrlimit(resource.RLIMIT_NOFILE, (more,) * 2)
"""


def limited(settings: Settings, tally: Tally) -> None:
    """`predict` with each backend under limits that end somewhere in opening, reading, inference, writing."""
    root = make_bundle(settings.folder / "bundle")
    images = write_pictures(settings.folder / "images", 3)
    draw = settings.draw("limits")
    backends = choices(Bundle.open(root))
    expected = {}
    done: subprocess.CompletedProcess[str] | None
    for backend, precision in backends:
        out = settings.folder / f"{backend} {precision}"
        done = _predict(root, images, out, backend, precision, "files", 1024)
        tally.demand(done.returncode == 0, f"{backend} {precision} without limits: {done.stderr[-300:]}")
        expected[backend, precision] = _masks(out)
    for number in range(settings.count(8, 150)):
        backend, precision = backends[number % len(backends)]
        kind = draw.choice(("memory", "memory", "files"))
        more = draw.randrange(2, 40) if kind == "files" else int(2 ** draw.uniform(18, 31))
        out = settings.folder / f"out {number}"
        what = f"{backend} {precision} with {more} {'bytes' if kind == 'memory' else 'descriptors'}"
        tally.add(f"limits of {kind}")
        try:
            done = _predict(root, images, out, backend, precision, kind, more)
        except subprocess.TimeoutExpired as error:
            said = error.stderr or b""
            frames = said if isinstance(said, str) else said.decode(errors="replace")
            inner = next((line for line in frames.splitlines() if 'File "' in line), "nowhere")
            if "site-packages" not in inner and "importlib" not in inner:
                tally.fault(f"{what}: hangs at {inner}")
            done = None
        if done is None:
            tally.add("hung while a backend's library was imported or called")
        elif done.returncode < 0 or done.returncode in (127, 134, 139):
            tally.add("ended by the backend's native code (a signal)")
        elif tally.ended(what, done):
            tally.demand(_masks(out) == expected[backend, precision], f"{what}: other masks")


def _predict(
    root: Path, images: Path, out: Path, backend: str, precision: str, kind: str, more: int
) -> subprocess.CompletedProcess[str]:
    words = ("predict", root, images, "--out", out, "--backend", backend, "--precision", precision)
    return subprocess.run(
        [sys.executable, "-c", LIMIT.replace("HANGS", str(HANGS_S)) + CLI, kind, str(more), *map(str, words)],
        capture_output=True, text=True, errors="replace", check=False, timeout=2 * HANGS_S,
    )  # fmt: skip


def _masks(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.rglob("*.png"))}
