"""What every command asks of the system, seen by strace: no network, no file outside of its folders."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from reliability.bundles import choices, make_bundle, write_pictures
from reliability.kills import NETWORK, RECIPE
from reliability.row import NotPossibleError, Settings, Tally, tumorseg
from tumorseg_runtime.bundle.bundle import Bundle

STRACE = ("strace", "-f", "-qq", "-y", "-s", "300", "-e")
CALLS = (
    "trace=%network,openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,symlink,"
    "symlinkat,link,linkat,truncate,chmod,fchmodat"
)
CHANGES = re.compile(r"^(?:\d+ +)?(?!openat|open\(|socket|connect)(\w+)\((.*)\) = (?!-1)")
OPENS = re.compile(r"^(?:\d+ +)?(?:openat|open|creat)\(.*(?:O_WRONLY|O_RDWR|O_CREAT).*\) = \d+<(.*?)>")
# Creating a socket, or binding it to this very machine, sends nothing: requests, which pydicom imports where
# it is installed, asks in this way whether there is IPv6.
INTERNET = re.compile(
    r"(?:connect|sendto|sendmsg|sendmmsg)\(.*AF_INET.*|bind\((?!.*(?:::1|127\.0\.0\.1)).*AF_INET.*"
)
PLACE = re.compile(r'(?:AT_FDCWD|\d+)<([^>]*)>, "([^"]*)"|"([^"]*)"')
# Devices, the process's own entries, and memory without a name.
NOWHERE = (
    "/dev/null",
    "/dev/tty",
    "/dev/urandom",
    "/proc/",
    "/sys/",
    "pipe:",
    "socket:",
    "/memfd:",
    "anon_inode:",
    "/dev/pts/",
)
SHARED = ("/dev/shm/",)  # memory of processes of one program, which is gone with them


def no_network_no_write_outside(settings: Settings, tally: Tally) -> None:
    """Every command in a process of its own under strace, with HOME and TMPDIR of its own."""
    if shutil.which("strace") is None:
        raise NotPossibleError("strace is not installed")
    trial = subprocess.run(["strace", "true"], capture_output=True, check=False)
    if trial.returncode:
        raise NotPossibleError("this machine does not let strace trace")
    home, temporary, work = (settings.folder / name for name in ("home", "tmp", "work"))
    for folder in (home, temporary, work):
        folder.mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "CI" and not k.startswith(("XDG_", "ORT_"))}
    environment |= {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
    trace = settings.folder / "trace"
    for words, expected in commands(work, settings.long):
        before = (*STRACE, CALLS, "-o", str(trace))
        done = tumorseg(*words, before=before, environment=environment, cwd=work)
        what = " ".join(str(word).replace(str(work), "") for word in words)
        tally.add("commands")
        tally.demand(
            done.returncode in expected, f"{what}: exit status {done.returncode}: {done.stderr[-300:]}"
        )
        lines = trace.read_text(errors="replace").splitlines()
        tally.add("calls of the system", len(lines))
        for line in lines:
            if found := INTERNET.search(line):
                tally.fault(f"{what}: {found[0]}")
        for path in written(lines):
            inside = path.startswith((str(work), str(temporary), *SHARED)) or path.startswith(NOWHERE)
            tally.demand(inside, f"{what}: writes {path}")
        for folder in (home, temporary):
            left = [str(one.relative_to(settings.folder)) for one in folder.rglob("*")]
            tally.demand(not left, f"{what}: leaves {left[:5]}")
            shutil.rmtree(folder)
            folder.mkdir()


def written(lines: list[str]) -> Iterator[str]:
    """Paths that a process has changed."""
    for line in lines:
        if found := OPENS.match(line):
            yield found[1]
        elif (change := CHANGES.match(line)) and change[1] not in ("sendto", "recvfrom", "bind"):
            for folder, name, whole in PLACE.findall(change[2]):
                path = whole or os.path.join(folder, name)
                if os.path.isabs(path):
                    yield os.path.normpath(path)


def commands(work: Path, everything: bool) -> Iterator[tuple[list[object], tuple[int, ...]]]:
    """Command lines with the exit statuses that they may end with."""
    root, images = make_bundle(work / "bundle"), write_pictures(work / "images", 3)
    other, key = make_bundle(work / "other", "other"), work / "key.pem"
    yield ["--help"], (0,)
    yield ["doctor"], (0,)
    yield ["verify", root], (0, 1)
    for backend, precision in choices(Bundle.open(root)):
        flags = ["--backend", backend, "--precision", precision]
        yield (
            ["predict", root, images, "--out", work / f"out-{backend}-{precision}", *flags, "--overlays"],
            (0,),
        )
    yield ["install", work / "store", root], (0,)
    yield ["install", work / "store", other], (0,)
    yield ["rollback", work / "store"], (0,)
    yield ["bundle", "pack", root, "--out", work / "x.zip"], (0,)
    yield ["bundle", "unpack", work / "x.zip", "--out", work / "unpacked"], (0,)
    yield ["sign", "--new-key", key], (0,)
    yield ["sign", root, "--key", key], (0,)
    yield ["verify", root, "--public-key", work / "key.pub.pem"], (0, 1)
    yield ["build", root, "--device-folder", work / "device"], (2,)
    if not everything:
        return
    data, run = work / "data", work / "run"
    yield ["data", "phantoms", data], (0,)
    yield ["data", "prepare", data], (0,)
    yield ["data", "audit", data, "--split", data / "split.json", "--out", work / "audit.html"], (0, 1)
    yield ["data", "import", images], (0, 1, 2)
    yield ["train", data, "--out", run, *NETWORK, *RECIPE], (0,)
    yield ["evaluate", run, "--out", work / "evaluation"], (0,)
    yield (
        [
            "export",
            run,
            "--out",
            work / "exported",
            "--targets",
            "onnx,onnx-fp16,onnx-deploy,ncnn,mnn,openvino",
            "--golden",
            "3",
        ],
        (0, 1),
    )
    yield ["export", run, "--out", work / "exported", "--targets", "onnx", "--golden", "3"], (0,)
    yield ["unfold", work / "exported", "--out", work / "weights.safetensors"], (0, 2)
    yield ["parity", work / "exported", "--out", work / "parity"], (0, 1)
    yield ["bench", work / "exported", "--run", run, "--out", work / "bench", "--batches", "1"], (0, 1)
    yield ["deploy", run, "--out", work / "deployed"], (0, 1)
    yield ["demo", "--out", work / "demo.html"], (0, 1)
