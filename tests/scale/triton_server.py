"""The tritonserver of PyPI's nvidia-pytriton on free ports of the loopback, and clients that count."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import tritonclient.grpc
import tritonclient.http

START_S = 120
STUB = "triton_python_backend_stub"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def backends(folder: Path) -> tuple[Path, Path, Path]:
    """Binary, folder of backends with the stub of this Python, and folder of libraries."""
    site = Path(sysconfig.get_path("purelib"))
    home = site / "pytriton" / "tritonserver"
    python = folder / "python"
    if not python.is_dir():
        shutil.copytree(home / "backends" / "python", python)
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        shutil.copy(home / "python_backend_stubs" / version / STUB, python / STUB)
        (python / STUB).chmod(0o755)
    return home / "bin" / "tritonserver", folder, site / "nvidia_pytriton.libs"


def environment(libraries: Path) -> dict[str, str]:
    """The stub embeds Python, which finds the environment by the first python of PATH."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{libraries}:{os.environ.get('LD_LIBRARY_PATH', '')}",
    }


class Server:
    """A server on a folder of `tumorseg serve-repository`, started by its serve.py.

    http, grpc: addresses. log: file of what both say.
    """

    def __init__(self, repository: Path, scratch: Path, *arguments: str) -> None:
        binary, folder, libraries = backends(scratch / "backends")
        ports = {name: free_port() for name in ("http", "grpc", "metrics")}
        self.http, self.grpc = (f"127.0.0.1:{ports[name]}" for name in ("http", "grpc"))
        self.log = scratch / "tritonserver.log"
        command = [sys.executable, str(repository / "serve.py"), "--server", str(binary)]
        command += ["--backend-directory", str(folder), *arguments]
        command += [f"--{name}-port={port}" for name, port in ports.items()]
        command += [f"--{name}-address=127.0.0.1" for name in ("grpc", "metrics")]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment(libraries)
            )

    def wait(self, model: str = "tumorseg") -> None:
        """Until the model is ready; raises RuntimeError with the end of the log where it is not."""
        client = tritonclient.http.InferenceServerClient(self.http)
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(Exception):
                if client.is_model_ready(model):
                    return
            time.sleep(0.1)
        raise RuntimeError(self.log.read_text()[-4000:])

    def stubs(self) -> list[int]:
        """The processes of the instances: grandchildren of serve.py."""
        servers = _children({self.process.pid})
        return sorted(_children(set(servers), STUB))

    def processes(self) -> set[int]:
        """The server and its instances."""
        servers = _children({self.process.pid})
        return {*servers, *_children(servers, STUB)}

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            for pid in _children({self.process.pid}):
                os.kill(pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait()


def _children(parents: set[int], word: str = "") -> set[int]:
    found = set()
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) in parents and state != "Z" and word in (path / "cmdline").read_text():
                found.add(int(path.name))
    return found


@contextlib.contextmanager
def serving(repository: Path, scratch: Path, *arguments: str) -> Iterator[Server]:
    server = Server(repository, scratch, *arguments)
    try:
        server.wait()
        yield server
    finally:
        server.stop()
