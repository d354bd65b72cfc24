"""The runtime on 64-bit Arm, emulated: Debian's Python under qemu-user, packages of the index for aarch64.

A root file system is unpacked, not installed (debootstrap's first stage, then `dpkg-deb -x`), so that
nothing needs binfmt_misc; programs run by `chroot ROOT /qemu python3`. `newest` has the newest packages of
the extras cpu and ncnn, `oldest` the lowest that pyproject.toml allows, as on JetPack 6 (whose Python 3.10
Debian lacks).
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from reliability.bundles import make_bundle, write_pictures
from reliability.environments import PLACE, RESOLUTIONS, SHIPPED, have_uv, plain, requirements
from reliability.row import CLI, ROOT, NotPossibleError, Settings, Tally

DISTRIBUTION, PYTHON = "bookworm", "3.11"  # Debian's release and its Python
PACKAGES = "python3,libgomp1,libstdc++6"
TOOLS = {"qemu-aarch64-static": "qemu-user-static", "debootstrap": "debootstrap", "dpkg-deb": "dpkg"}
EXTRAS = ("cpu", "ncnn")
ENTER = """
for place in proc sys dev; do mount --rbind /$place "$1/$place"; done  # in a namespace that ends with this
root=$1; shift
exec chroot "$root" /qemu "$@"
"""
PROBE = """
import hashlib, json, sys
from pathlib import Path
import numpy
from tumorseg_runtime import Bundle, Segmenter
from tumorseg_runtime.backends import BACKENDS, has_artefact, why_unavailable
from tumorseg_runtime.processing.preprocess import Preprocessor
from tumorseg_runtime.images.read import read_image

def digest(values):
    return hashlib.sha256(numpy.ascontiguousarray(values).tobytes()).hexdigest()[:16]

found = {}
bundle = Bundle.open(sys.argv[1])
images = sorted(Path(sys.argv[2]).iterdir())
for path in images:
    found[f"tensor of {path.name}"] = digest(Preprocessor(bundle.contract)(read_image(path)))
for name in ("onnxruntime", "ncnn"):
    for precision in BACKENDS[name].precisions:
        if not has_artefact(bundle, name, precision) or why_unavailable(name, "cpu"):
            continue
        with Segmenter.open(bundle, backend=name, precision=precision, threads=1, logits=True) as segmenter:
            for path in images:
                prediction = segmenter.predict(path)
                found[f"logits of {path.name}, {name} {precision}"] = digest(prediction.own_logits)
                found[f"masks of {path.name}, {name} {precision}"] = digest(prediction.masks)
print(json.dumps(found))
"""


def on_arm(settings: Settings, tally: Tally) -> None:
    """Each tensor, logit and mask beside those of this machine, for the conformance network and the shipped
    one, and `verify` of the former where the whole counts are asked for."""
    if not settings.long:
        raise NotPossibleError("it emulates a processor, for minutes: only in the long form")
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing or os.geteuid() or platform.machine() != "x86_64":
        need = f"Debian: apt-get install {' '.join(missing)}" if missing else "root on x86-64"
        raise NotPossibleError(f"needs {need}")
    uv = have_uv()
    root = PLACE / "aarch64"
    make_root(root)
    shutil.rmtree(root / "work", ignore_errors=True)
    bundles = {"conformance": make_bundle(root / "work/conformance"), "shipped": root / "work/shipped"}
    shutil.copytree(SHIPPED, bundles["shipped"])
    images = write_pictures(root / "work/images", 3)
    here = {name: probe(bundle, images) for name, bundle in bundles.items()}
    for name, resolution in RESOLUTIONS.items():
        put_packages(uv, root, resolution)
        for kind, expected in here.items():
            found = json.loads(checked(run_there(root, "-c", PROBE, f"/work/{kind}", "/work/images")))
            tally.demand(found.keys() == expected.keys(), f"{name}: other backends: {sorted(found)}")
            for what in sorted(found.keys() & expected.keys()):
                compare(what, found[what] == expected[what], kind, name, tally)
        if settings.scale >= 1:
            verified(root, name, tally)


def verified(root: Path, name: str, tally: Tally) -> None:
    """`verify` of the conformance network in float32, which is half an hour of emulation."""
    done = run_there(root, "-c", CLI, "verify", "/work/conformance", "--precision", "fp32", "--json")
    tally.demand(done.returncode == 0, f"{name}: verify: {done.stderr[-300:]}")
    for one in json.loads(done.stdout)["checks"] if done.stdout else ():
        if one["backend"] in ("onnxruntime", "ncnn") and one["device"] == "cpu":
            tally.add("backends that verify passes", one["status"] == "passed")
            tally.demand(one["status"] == "passed", f"{name}: {one['backend']}: {one['detail']}")


def compare(what: str, same: bool, kind: str, name: str, tally: Tally) -> None:
    """Tensors, and the conformance network's masks, are the same everywhere. Logits may differ in their last
    bits (Arm computes in FP16 what x86-64 computes in FP32): each is counted and has a line."""
    part = what.partition(" ")[0]
    tally.add(f"{part} {'the same' if same else 'other than on x86-64'}, {kind} network")
    if not same:
        sys.stderr.write(f"other bits: {name} packages, {kind} network: {what}\n")
    if not same and (part == "tensor" or (part == "masks" and kind == "conformance")):
        tally.fault(f"{name}: {what} of the {kind} network")


def probe(bundle: Path, images: Path) -> dict[str, Any]:
    """What this machine's environment finds."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(bundle), str(images)], capture_output=True, text=True, check=False
    )
    return dict(json.loads(checked(done)))


def checked(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode:
        raise RuntimeError(f"{done.args[:3]}: {done.stderr[-500:]}")
    return done.stdout.splitlines()[-1]


def make_root(root: Path) -> None:
    """Debian's files for arm64, unless they are there already."""
    if (root / f"usr/bin/python{PYTHON}").exists():
        return
    shutil.rmtree(root, ignore_errors=True)
    words = [
        "--foreign",
        "--arch=arm64",
        "--variant=minbase",
        f"--include={PACKAGES}",
        DISTRIBUTION,
        str(root),
    ]
    done = subprocess.run(["debootstrap", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotPossibleError(f"debootstrap: {done.stdout.strip()[-300:]}")
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
        package.unlink()
    shutil.copy2(str(shutil.which("qemu-aarch64-static")), root / "qemu")


def put_packages(uv: Path, root: Path, resolution: str) -> None:
    """The packages of the extras for aarch64, and tumorseg as a wheel, in place of those that were there."""
    target = root / "packages"
    shutil.rmtree(target, ignore_errors=True)
    for words in (
        requirements(resolution, EXTRAS),
        ["--no-deps", str(ROOT)],
    ):
        command = [
            str(uv), "pip", "install", "--quiet", "--target", str(target),
            "--python-platform", "aarch64-manylinux_2_36", "--python-version", PYTHON, *words,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=plain())
        if done.returncode:
            raise NotPossibleError(f"packages for aarch64: {done.stderr.strip()[-300:]}")


def run_there(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python under qemu, in the root."""
    python = f"/usr/bin/python{PYTHON}"
    command = ["unshare", "--mount", "sh", "-ec", ENTER, "sh", str(root), python, *words]
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": "/packages", "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/work", "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, env=environment, timeout=3600
    )
