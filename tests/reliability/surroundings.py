"""Other clocks, languages, rights, homes, ways to start a process: the same masks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from reliability.bundles import make_bundle, write_pictures
from reliability.row import CLI, Settings, Tally
from tumorseg_runtime.deployment.store import install, open_active

CLOCKS = ("0", "1", "2**31 + 5", "2**33", "-5")
NOBODY = "os.setgroups([]); os.setgid(54321); os.setuid(54321); "
PROCESSES = """
import multiprocessing, hashlib, sys
from tumorseg_runtime import Segmenter

def work(arguments):
    root, image = arguments
    with Segmenter.open(root, backend=BACKEND, threads=1) as segmenter:
        return hashlib.sha256(segmenter.predict(image).masks.tobytes()).hexdigest()
"""


def surrounded(settings: Settings, tally: Tally) -> None:
    """`predict` and `install` in each surrounding; every output but times and paths is the same."""
    root = make_bundle(settings.folder / "bundle")
    images = write_pictures(settings.folder / "images", 4)
    plain = dict(os.environ)
    cases: dict[str, tuple[dict[str, str | None], str]] = {"plain": ({}, "")}
    for name in ("tr_TR.UTF-8", "C", "POSIX", "ja_JP.EUC-JP", "xx_YY"):
        cases[f"locale {name}"] = ({"LC_ALL": name, "LANG": name, "PYTHONUTF8": "0"}, "")
    cases["ASCII streams"] = ({"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}, "")
    for zone in ("Asia/Kathmandu", "America/St_Johns", "nonsense"):
        cases[f"time zone {zone}"] = ({"TZ": zone}, "")
    for clock in CLOCKS:
        cases[f"clock {clock}"] = ({}, f"import time; time.time = lambda: {clock} + 0.5; ")
    cases["clock going backwards"] = (
        {},
        "import time, itertools; n = itertools.count(10**9, -1); time.time = lambda: float(next(n)); ",
    )
    for mask in ("0o777", "0o077", "0o000", "0o022"):
        cases[f"umask {mask}"] = ({}, f"import os; os.umask({mask}); ")
    cases["no HOME"] = ({"HOME": None}, "")
    cases["HOME that is not there"] = ({"HOME": "/nonexistent/home"}, "")
    cases["no environment but PATH"] = (dict.fromkeys(set(plain) - {"PATH", "PYTHONPATH"}), "")
    cases["one CPU"] = (
        {"OMP_NUM_THREADS": None},
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); ",
    )
    cases["hash seed"] = ({"PYTHONHASHSEED": "12345"}, "")
    cases["optimised"] = ({"PYTHONOPTIMIZE": "2"}, "")
    if os.geteuid() == 0 and all(place.stat().st_mode & 0o1 for place in Path(os.__file__).resolve().parents):
        cases["a user without a name"] = (
            {"HOME": None},
            f"import os; os.chmod({str(settings.folder)!r}, 0o777); {NOBODY}",
        )
    expected: dict[str, bytes] = {}
    for name, (changes, before) in cases.items():
        environment = {k: v for k, v in {**plain, **changes}.items() if v is not None}
        out, store = settings.folder / f"out {name}", settings.folder / f"store {name}"
        command = [sys.executable, "-B", "-c", before + CLI]
        for words in (("predict", root, images, "--out", out), ("install", store, root)):
            done = subprocess.run(
                [*command, *map(str, words)], capture_output=True, text=True, errors="replace",
                env=environment, timeout=900, check=False,
            )  # fmt: skip
            tally.add("commands")
            tally.demand(done.returncode == 0, f"{name}: {words[0]}: {done.stderr[-300:]}")
        found = {p.name: p.read_bytes() for p in sorted(out.rglob("*.png"))}
        expected = expected or found
        tally.demand(found == expected and bool(found), f"{name}: other masks")
        try:
            install(store, root, test=lambda bundle: None)
            open_active(store)
        except Exception as error:  # noqa: BLE001  # this is what is looked for
            tally.fault(f"{name}: the store: {error}")
        tally.add("surroundings")
    processes(settings, tally, root, images / "00.png")


def processes(settings: Settings, tally: Tally, root: Path, image: Path) -> None:
    """Each way to start a process, with each kind of backend."""
    answers = set()
    for backend in ("onnxruntime", "mnn", "ncnn", "openvino"):
        for method in ("spawn", "fork", "forkserver"):
            script = settings.folder / f"{method}.py"
            script.write_text(
                PROCESSES.replace("BACKEND", repr(backend))
                + "if __name__ == '__main__':\n"
                + f"    context = multiprocessing.get_context({method!r})\n"
                + "    with context.Pool(2) as pool:\n"
                + "        print(*set(pool.map(work, [tuple(sys.argv[1:])] * 4)))\n"
            )
            done = subprocess.run(
                [sys.executable, str(script), str(root), str(image)], capture_output=True, text=True,
                timeout=600, check=False,
            )  # fmt: skip
            tally.add("pools of processes")
            tally.demand(done.returncode == 0, f"{backend} {method}: {done.stderr[-300:]}")
            answers.add(done.stdout)
    tally.demand(len(answers) == 1, f"processes give {len(answers)} different masks")
