from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tumorseg_runtime.backends import mnn as backend
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.backends.mnn import MnnSession
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.core.session import checked_infer

pytestmark = pytest.mark.process

if importlib.util.find_spec("MNN") is None:
    pytest.skip("MNN is not installed", allow_module_level=True)
Maker = Callable[..., Path]
Convert = Callable[[Path, str], None]
NAMES = ["mnn", "mnn-exact"]


@pytest.fixture(scope="module")
def bundle(make_bundle: Maker, convert_bundle: Convert, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root = make_bundle(tmp_path_factory.mktemp("mnn") / "bundle")
    convert_bundle(root, "mnn")
    return Bundle.open(root)


@pytest.fixture(params=NAMES)
def session(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[MnnSession]:
    opened = open_session(bundle, backend=request.param, threads=1)
    assert isinstance(opened, MnnSession)
    with opened:
        yield opened


def images(count: int, contract: Contract) -> np.ndarray:
    shape = (count, contract.channels, contract.height, contract.width)
    return np.random.default_rng(count).standard_normal(shape, np.float32)


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_winograd_level_is_what_the_backends_name_says(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    setups = []

    class Caught(Exception):
        pass

    def catch(name: str, script: Path, setup: dict[str, Any], limit_s: float, **_: Any) -> None:
        setups.append((name, setup["winograd_level"], setup["threads"]))
        raise Caught

    monkeypatch.setattr(backend, "Worker", catch)
    for name in NAMES:
        with pytest.raises(Caught):
            open_session(bundle, backend=name)
    cores = len(os.sched_getaffinity(0))
    assert setups == [("mnn", None, cores), ("mnn-exact", 1, cores)]


def test_values_that_are_not_finite_and_wrong_shapes_never_reach_it(
    bundle: Bundle, session: MnnSession
) -> None:
    batch = images(1, bundle.contract)
    with pytest.raises(InputError, match=r"expected float32 \(N, 3, 64, 64\)"):
        session.infer(batch[..., :32])
    batch[0, 0, 5, 5] = np.nan
    with pytest.raises(InputError, match="not finite"):
        checked_infer(session, batch, bundle.contract)


@pytest.mark.fault
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_is_reported_and_replaced(
    bundle: Bundle, session: MnnSession, kill: signal.Signals
) -> None:
    batch = images(2, bundle.contract)
    expected = session.infer(batch)
    os.kill(session._worker.pid or 0, kill)
    with pytest.raises(BackendError, match=f"{session.info.backend}'s process died of {kill.name}"):
        session.infer(batch)
    assert np.array_equal(session.infer(batch), expected)


@pytest.mark.fault
def test_a_worker_that_hangs_is_ended_and_replaced(bundle: Bundle, session: MnnSession) -> None:
    batch = images(1, bundle.contract)
    expected = session.infer(batch)
    os.kill(session._worker.pid or 0, signal.SIGSTOP)
    session._worker.limit_s = 0.5
    with pytest.raises(BackendError, match=r"did not answer within 0\.5 s and was ended"):
        session.infer(batch)
    session._worker.limit_s = 60.0
    assert np.array_equal(session.infer(batch), expected)


def test_a_closed_session_says_so(bundle: Bundle) -> None:
    opened = open_session(bundle, backend="mnn", threads=1)
    assert isinstance(opened, MnnSession)
    opened.close()
    with pytest.raises(BackendError, match="mnn was closed"):
        opened.infer(images(1, bundle.contract))


def test_the_worker_is_light_and_this_process_stays_without_mnn(bundle: Bundle) -> None:
    code = """
import sys
from pathlib import Path
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.bundle.bundle import Bundle
session = open_session(Bundle.open(sys.argv[1]), backend="mnn")
assert not {"MNN", "_mnncengine"} & set(sys.modules)
libraries = Path(f"/proc/{session._worker.pid}/maps").read_text()
assert "_mnncengine" in libraries and "numpy" in libraries
assert "cv2" not in libraries and "onnxruntime" not in libraries
"""
    done = run_python(code, bundle.root)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""  # MNN prints about the CPU when it is imported


@pytest.mark.fault
@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "if os.fork(): os.kill(os.getpid(), 9)"])
def test_the_worker_ends_with_its_parent(bundle: Bundle, end: str) -> None:
    """A fork that goes on holds the sockets open, so the worker looks whose child it is."""
    code = f"""
import os, sys, time
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.bundle.bundle import Bundle
session = open_session(Bundle.open(sys.argv[1]), backend="mnn")
print(session._worker.pid, flush=True)
sys.stdout.close(); os.close(1); os.close(2)
{end}
for _ in range(600):
    if not os.path.exists(f"/proc/{{session._worker.pid}}"):
        os._exit(0)
    time.sleep(0.1)
"""
    done = run_python(code, bundle.root)
    pid = int(done.stdout)
    for _ in range(600):
        if not Path(f"/proc/{pid}").exists() or ") Z " in Path(f"/proc/{pid}/stat").read_text():
            return
        signal.sigtimedwait([], 0.1)
    pytest.fail(f"process {pid} is still there")


def test_a_network_of_another_contract_is_refused(
    make_bundle: Maker, convert_bundle: Convert, tmp_path: Path
) -> None:
    root = make_bundle(tmp_path / "bundle", channels=1)
    convert_bundle(root, "mnn")
    with pytest.raises(BackendError, match=r"cannot start \(ValueError: the file takes .*\[1, 1, 64, 64\]"):
        open_session(Bundle.open(root), backend="mnn")


@pytest.mark.fault
def test_a_broken_file_is_a_backend_error(
    make_bundle: Maker, convert_bundle: Convert, tmp_path: Path, reseal: Callable[[Path], Bundle]
) -> None:
    root = make_bundle(tmp_path / "bundle")
    convert_bundle(root, "mnn")
    (root / "model.mnn").write_bytes((root / "model.mnn").read_bytes()[:50])
    opened = reseal(root)
    with pytest.raises(BackendError, match=r"mnn cannot start .*Invalid model file"):
        open_session(opened, backend="mnn")
