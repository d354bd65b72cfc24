"""A child process that answers one message at a time, and that may die or hang without harm.

For code that holds the GIL, that no thread could interrupt, or that may take its process with it. The
child runs one Python file and nothing else of this package, so it loads only what that file imports. The
two talk over a pair of sockets, in messages of bytes:

    parent                                    child
    setup, a JSON object                  ->
                                          <-  facts, a JSON object; or {"error": text}, and it ends
    a request                             ->
                                          <-  b"" and the answer; or the text of an error

The child ends when its end of the pair closes, so it does not outlive its parent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.core.records import Format, to_json

_FACTS = Format("answer of a child process", "install tumorseg again", error=BackendError, max_bytes=2**20)
START_LIMIT_S = 300.0  # seconds to import, load and answer the setup; generous: a loaded machine is no fault


@dataclasses.dataclass(frozen=True)
class _Child:
    process: subprocess.Popen[bytes]
    connection: Connection
    owner: int  # the process that started it
    interrupted: threading.Event = dataclasses.field(default_factory=threading.Event)

    def kill(self) -> None:
        """End the child and take its exit status; does nothing in a fork of the process that started it."""
        if os.getpid() == self.owner:
            self.process.kill()
            self.process.wait()
        self.connection.close()


class Worker:
    """A child process behind `ask`. Threads may share it; their requests take turns.

    name: for messages. script: the Python file that the child runs. setup: plain values for it.
    limit_s: seconds after which a request counts as hanging. start_limit_s: of a start.
    files: open descriptors that the child and those after it get, too; they are closed with the worker.
    facts: what the child answered to the setup.
    Raises BackendError where the child cannot be started.
    """

    def __init__(
        self, name: str, script: Path, setup: dict[str, Any], limit_s: float, files: tuple[int, ...] = (),
        start_limit_s: float = START_LIMIT_S,
    ) -> None:  # fmt: skip
        self._files = files
        for file in files:  # those of a fork are its own
            weakref.finalize(self, os.close, file)
        self.name = name
        self.limit_s, self._start_limit_s = limit_s, start_limit_s
        self._script = script
        self._setup = {**setup, "limit_s": limit_s}
        self._turn = threading.Lock()
        self._closed = False
        self._child: _Child | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None
        with self._turn:
            self.facts = self._start()

    @property
    def pid(self) -> int | None:
        """Process number of the child, None where there is none just now."""
        child = self._child
        return child.process.pid if child else None

    def ask(self, request: bytes | memoryview) -> bytes:
        """The child's answer to a request, after those of other threads.

        Raises BackendError where the child reports an error, dies or hangs. In the last two cases the next
        call starts another child.
        """
        with self._turn:
            if self._closed:
                raise BackendError(f"{self.name} was closed, expected an open session: open it again")
            child = self._child
            if child is None or child.owner != os.getpid() or child.interrupted.is_set():
                self._start()
            with self._watched(self.limit_s) as connection:
                connection.send_bytes(request)
                error = connection.recv_bytes()
                answer = b"" if error else connection.recv_bytes()
        if error:
            raise BackendError(f"{self.name} failed ({error.decode()}): free memory, or check the bundle")
        return answer

    def interrupt(self) -> None:
        """Kill the child now: a call that waits for it raises BackendError, the next call starts another."""
        child = self._child
        if child is not None and child.owner == os.getpid():
            child.interrupted.set()
            child.process.kill()

    def close(self) -> None:
        """End the child, once the request that it works on is answered; later calls raise BackendError."""
        with self._turn:
            self._closed = True
            self._drop()

    def _start(self) -> dict[str, Any]:
        self._drop()
        if not sys.executable:
            raise BackendError(
                f"{self.name} needs a process of its own, and this program names no Python interpreter to "
                "start it with: set sys.executable"
            )
        ours, theirs = Pipe()
        # The path is set before anything is imported: the child must not find modules in its working folder.
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from runpy import run_path; "
            f"run_path({str(self._script)!r})['main']({theirs.fileno()}, {os.getpid()})"
        )
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # of this program, whose output is not a log
                pass_fds=[theirs.fileno(), *self._files],
            )
        self._child = _Child(process, ours, os.getpid())
        self._finalizer = weakref.finalize(self, self._child.kill)
        with self._watched(self._start_limit_s) as connection:
            connection.send_bytes(to_json(self._setup).encode())
            answer = connection.recv_bytes(_FACTS.max_bytes)
        facts: dict[str, Any] = _FACTS.parse(answer, self.name, dict[str, Any])
        if "error" in facts:
            self._drop()
            raise BackendError(
                f"{self.name} cannot start ({facts['error']}): check the bundle and the package"
            )
        return facts

    def _drop(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        self._child = self._finalizer = None

    @contextlib.contextmanager
    def _watched(self, limit_s: float) -> Iterator[Connection]:
        """Yield the child's connection, and kill the child if the block takes longer than `limit_s`.

        Only a kill ends every wait: a stopped child can block the sending as well as the receiving. A child
        whose block ended by any exception is dropped, since its next message would answer the last request.
        """
        child = self._child
        assert child is not None
        guard, state = threading.Lock(), {"done": False, "late": False}

        def expire() -> None:
            with guard:
                if not state["done"]:
                    state["late"] = True
                    child.process.kill()

        timer = threading.Timer(limit_s, expire)
        timer.daemon = True
        timer.start()
        try:
            yield child.connection
        except (EOFError, OSError) as error:
            self._drop()
            raise BackendError(
                f"{self.name}'s process {_fate(child, state['late'], limit_s)}, expected an answer: "
                "the next call starts another; if it happens again, check the machine's memory and the bundle"
            ) from error
        except BaseException:  # KeyboardInterrupt, too
            self._drop()
            raise
        finally:
            with guard:
                state["done"] = True
            timer.cancel()


def _fate(child: _Child, late: bool, limit_s: float) -> str:
    """How a dead child ended, in words."""
    status = child.process.wait()
    if child.interrupted.is_set():
        return "was ended by its owner"
    if late:
        return f"did not answer within {limit_s:g} s and was ended"
    if status < 0:
        return f"died of {signal.Signals(-status).name}"
    return f"ended with exit status {status}"
