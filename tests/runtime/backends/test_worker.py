from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tumorseg_runtime.backends.worker import START_LIMIT_S, Worker
from tumorseg_runtime.core.errors import BackendError

pytestmark = pytest.mark.process

CHILD = """
import json, os, sys, time
from multiprocessing.connection import Connection

def main(descriptor, parent):
    connection = Connection(descriptor)
    setup = json.loads(connection.recv_bytes())
    time.sleep(setup.get("slow", 0))
    if "refuse" in setup:
        connection.send_bytes(json.dumps({"error": setup["refuse"]}).encode())
        return
    facts = {"pid": os.getpid(), "modules": sorted(sys.modules), "path": sys.path, "parent": parent}
    connection.send_bytes(json.dumps(facts).encode())
    while True:
        try:
            request = connection.recv_bytes()
        except EOFError:
            sys.exit(0)
        if request == b"exit":
            os._exit(3)
        if request == b"hang":
            time.sleep(600)
        if request == b"print":
            print("noise", flush=True)
        if request == b"wrong":
            connection.send_bytes(b"it is wrong")
            continue
        connection.send_bytes(b"")
        connection.send_bytes(request[::-1])
"""


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Function that starts a worker that turns every request around."""
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    workers = []

    def open_worker(limit_s: float = 60.0, start_limit_s: float = START_LIMIT_S, **setup: object) -> Worker:
        workers.append(Worker("test", script, setup, limit_s, start_limit_s=start_limit_s))
        return workers[-1]

    yield open_worker
    for worker in workers:
        worker.close()


def is_alive(pid: int | None) -> bool:
    """False for a process that has ended, also for one that nobody has waited for: a zombie."""
    assert pid is not None
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    assert state != "Z", "a zombie"
    return True


def wait_for_end(pid: int) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True  # of a process that another one started
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def test_it_answers_and_runs_nothing_else_of_the_package(start: Callable[..., Worker]) -> None:
    worker = start()
    assert worker.ask(b"abc") == b"cba"
    assert worker.ask(memoryview(bytes(3_000_000))) == bytes(3_000_000)
    assert worker.facts["pid"] == worker.pid != os.getpid()
    assert worker.facts["parent"] == os.getpid()
    assert worker.facts["path"] == sys.path
    assert not {"tumorseg_runtime", "cv2", "numpy"} & set(worker.facts["modules"])


def test_many_threads_each_get_their_own_answer(start: Callable[..., Worker]) -> None:
    worker = start()
    requests = [f"request {n}".encode() for n in range(200)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(worker.ask, requests)) == [request[::-1] for request in requests]


def test_an_error_is_told_and_the_child_goes_on(start: Callable[..., Worker]) -> None:
    worker = start()
    pid = worker.pid
    with pytest.raises(BackendError, match=r"test failed \(it is wrong\)"):
        worker.ask(b"wrong")
    assert worker.ask(b"ab") == b"ba"
    assert worker.pid == pid


def test_a_child_that_cannot_start_is_an_error(start: Callable[..., Worker]) -> None:
    with pytest.raises(BackendError, match=r"test cannot start \(no model\)"):
        start(refuse="no model")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("request_", "fate"),
    [(b"exit", "ended with exit status 3"), (b"hang", r"did not answer within 0\.3 s and was ended")],
)
def test_a_child_that_dies_or_hangs_is_reported_and_replaced(
    start: Callable[..., Worker], request_: bytes, fate: str
) -> None:
    worker = start(limit_s=0.3)
    pid = worker.pid
    with pytest.raises(BackendError, match=f"test's process {fate}, expected an answer"):
        worker.ask(request_)
    assert not is_alive(pid)
    worker.limit_s = 60.0
    assert worker.ask(b"ab") == b"ba"
    assert worker.pid != pid


@pytest.mark.fault
def test_a_killed_child_is_reported_with_its_signal(start: Callable[..., Worker]) -> None:
    worker = start()
    os.kill(worker.pid or 0, signal.SIGKILL)
    with pytest.raises(BackendError, match="died of SIGKILL"):
        worker.ask(b"ab")
    assert worker.ask(b"ab") == b"ba"


def test_a_stopped_child_cannot_block_the_sending(start: Callable[..., Worker]) -> None:
    worker = start(limit_s=0.5)
    os.kill(worker.pid or 0, signal.SIGSTOP)
    with pytest.raises(BackendError, match=r"did not answer within 0\.5 s"):
        worker.ask(bytes(20_000_000))  # more than the socket holds


@pytest.mark.fault
def test_interrupt_ends_a_waiting_call_and_the_next_one_works(start: Callable[..., Worker]) -> None:
    worker = start()
    pid = worker.pid
    timer = threading.Timer(0.3, worker.interrupt)
    timer.start()
    with pytest.raises(BackendError, match="was ended by its owner"):
        worker.ask(b"hang")
    timer.join()
    assert not is_alive(pid)
    assert worker.ask(b"ab") == b"ba"


@pytest.mark.fault
def test_interrupt_between_calls_costs_no_answer(start: Callable[..., Worker]) -> None:
    worker = start()
    worker.interrupt()
    assert worker.ask(b"ab") == b"ba"


def test_ctrl_c_in_a_call_does_not_shift_the_answers(
    start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = start()
    child = worker._child
    assert child is not None
    real = child.connection.recv_bytes

    def interrupted() -> bytes:
        real()
        raise KeyboardInterrupt

    monkeypatch.setattr(child.connection, "recv_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        worker.ask(b"first")
    assert worker.ask(b"second") == b"dnoces"


def test_close_ends_the_child_and_later_calls_are_refused(start: Callable[..., Worker]) -> None:
    worker = start()
    pid = worker.pid
    worker.close()
    worker.close()
    assert not is_alive(pid)
    with pytest.raises(BackendError, match="test was closed"):
        worker.ask(b"ab")


def test_a_forgotten_worker_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    worker = Worker("test", tmp_path / "child.py", {}, 60.0)
    pid = worker.pid
    del worker
    gc.collect()
    assert not is_alive(pid)


@pytest.mark.fault
@pytest.mark.parametrize("end", ["sys.exit()", "os.kill(os.getpid(), 9)"])
def test_the_child_ends_with_its_parent(tmp_path: Path, end: str) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    code = f"""
import os, sys, time
from pathlib import Path
from tumorseg_runtime.backends.worker import START_LIMIT_S, Worker
worker = Worker("test", Path({str(tmp_path / "child.py")!r}), {{}}, 60.0)
print(worker.pid, flush=True)
{end}
"""
    done = run_python(code)
    assert wait_for_end(int(done.stdout))


def test_a_fork_uses_a_child_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    code = f"""
import os, sys
from pathlib import Path
from tumorseg_runtime.backends.worker import START_LIMIT_S, Worker
worker = Worker("test", Path({str(tmp_path / "child.py")!r}), {{}}, 60.0)
first = worker.pid
if os.fork() == 0:
    assert worker.ask(b"ab") == b"ba" and worker.pid != first
    sys.exit(0)
assert os.wait()[1] == 0
assert worker.ask(b"cd") == b"dc" and worker.pid == first
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_what_the_child_prints_is_not_the_programs_output(
    start: Callable[..., Worker], capfd: pytest.CaptureFixture[str]
) -> None:
    assert start().ask(b"print") == b"tnirp"
    assert capfd.readouterr().out == ""


def test_without_an_interpreter_it_says_so(
    start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(BackendError, match="names no Python interpreter"):
        start()


def test_a_start_has_a_limit_of_its_own(start: Callable[..., Worker]) -> None:
    assert start(limit_s=0.5, slow=1.0).ask(b"ab") == b"ba"  # a batch may take less than a start
    with pytest.raises(BackendError, match=r"did not answer within 0\.5 s and was ended"):
        start(start_limit_s=0.5, slow=60)
