"""Nothing of the runtime opens a network connection or writes outside of the folders it was given.

A fresh interpreter does everything the runtime offers under an audit hook that refuses both. What native
code does unseen by the hook shows afterwards in the working folder, HOME and TMPDIR, which must stay empty.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tumorseg_runtime.images.read import write_png

pytestmark = pytest.mark.process

SCRIPT = """
import os, sys
bundle, images, out, store = sys.argv[1:]
allowed = (out, store, os.environ["TMPDIR"])  # conformance files lie there for a moment
def refuse(event, args):
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        raise RuntimeError(f"network: {event} {args}")
    target = None
    if event == "open" and isinstance(args[0], (str, bytes)):
        writes = args[1] is not None and set(args[1]) & set("wax+") or (args[2] or 0) & 0o1103
        target = args[0] if writes else None
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.symlink", "os.link"):
        target = args[0]
        if event in ("os.remove", "os.rmdir") and args[-1] >= 0:
            target = None  # within an open folder, as shutil.rmtree does with one of those below
    elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        raise RuntimeError(f"process: {event} {args}")
    if target is not None:
        name = target.decode() if isinstance(target, bytes) else str(target)
        if not name.startswith(allowed) and name != "/dev/null":
            raise RuntimeError(f"write: {event} {name}")
sys.addaudithook(refuse)
from click.testing import CliRunner
from tumorseg_runtime import Segmenter
from tumorseg_runtime.cli.store import install
from tumorseg_runtime.cli.predict import predict
from tumorseg_runtime.cli.verify import verify
segmenter = Segmenter.open(bundle, backend="auto", self_test=True, timeout_s=60)
segmenter.predict(images + "/a.png", timeout_s=60)
assert len(list(segmenter.stream([images + "/a.png"] * 3, timeout_s=60))) == 3
def run(command, *args):
    result = CliRunner().invoke(command, args)
    assert result.exit_code == 0, (command.name, result.output, result.exception)
run(predict, bundle, images, "--out", out, "--probabilities")
run(predict, bundle, images, "--out", out, "--probabilities", "--resume")
run(verify, bundle, "--backend", "onnxruntime", "--device", "cpu")
run(install, store, bundle)
try:
    open(images + "/escaped", "w")
except RuntimeError as error:
    assert "escaped" in str(error)
else:
    raise AssertionError("the guard does not guard")
"""


def test_no_network_and_no_file_elsewhere(
    small_bundle: Path, tmp_path: Path, scene: Callable[..., Any]
) -> None:
    places = {name: tmp_path / name for name in ("images", "cwd", "home", "temporary", "out", "store")}
    for name in ("images", "cwd", "home", "temporary"):
        places[name].mkdir()
    write_png(places["images"] / "a.png", scene(50, 60))
    before = sorted(small_bundle.rglob("*"))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))},
        "HOME": str(places["home"]),
        "TMPDIR": str(places["temporary"]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    folders = [str(places[name]) for name in ("images", "out", "store")]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(small_bundle), *folders],
        capture_output=True,
        text=True,
        cwd=places["cwd"],
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("cwd", "home", "temporary"):
        assert list(places[name].rglob("*")) == []
    assert sorted(small_bundle.rglob("*")) == before
    assert [path.name for path in places["images"].iterdir()] == ["a.png"]
    assert (places["out"] / "masks/a.png").is_file()


NATIVE = """
import sys, time
from tumorseg_runtime import Segmenter
segmenter = Segmenter.open(sys.argv[1], self_test=True)
time.sleep(3)  # a reporter in the background would have begun by now
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_native_code_opens_no_connection_either(small_bundle: Path, tmp_path: Path) -> None:
    """ONNX Runtime from 1.29 on asks for its maker's server, and keeps an id in HOME, unless told not to."""
    trace, home = tmp_path / "trace", tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
    strace = ["strace", "-f", "-e", "trace=network", "-o", str(trace)]
    done = subprocess.run(
        [*strace, sys.executable, "-c", NATIVE, str(small_bundle)],
        capture_output=True,
        text=True,
        env={**environment, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=300,
        check=False,
    )
    if "ptrace" in done.stderr:
        pytest.skip("this machine does not let strace trace")
    assert done.returncode == 0, done.stderr
    calls = trace.read_text()
    assert "exited with 0" in calls
    assert re.findall(r"socket\(AF_INET6?.*|connect\(.*", calls) == []
    assert list(home.rglob("*")) == []
