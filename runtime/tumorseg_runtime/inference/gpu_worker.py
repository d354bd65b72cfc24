"""The child of `gpu_process`: one session on a GPU, and pipelines on it. Run by `backends.worker`."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import uuid
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from tumorseg_runtime.backends import files_of, open_session
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BackendError, BundleError, GpuLostError, TumorsegError
from tumorseg_runtime.core.records import to_json
from tumorseg_runtime.device.on_stream import OnStream
from tumorseg_runtime.inference.gpu_masks import GpuMasks
from tumorseg_runtime.inference.gpu_process import as_object, packed, unpacked

PARENT_CHECK_S = 5.0
KEPT = 2  # pipelines: each has buffers on the GPU


class GpuServer:
    """Answers requests with one session. Tickets and pipelines are this process's own."""

    def __init__(self, setup: dict[str, Any]) -> None:
        backend, precision = setup["backend"], setup["precision"]
        bundle = Bundle.open(Path(setup["root"]), None, lambda one: files_of(one, backend, precision))
        if bundle.digest() != setup["digest"]:
            raise BundleError(
                f"{bundle.root}: is another bundle now ({bundle.digest()[:16]}), expected "
                f"{setup['digest'][:16]}: open it again"
            )
        folder = setup["device_folder"]
        self.session: Any = open_session(
            bundle, backend=backend, device=setup["device"], precision=precision, threads=setup["threads"],
            device_folder=None if folder is None else Path(folder),
        )  # fmt: skip
        self._contract = bundle.contract
        self._pipelines: dict[str, GpuMasks] = {}
        self._tickets: dict[str, tuple[GpuMasks, Any]] = {}

    def facts(self) -> dict[str, Any]:
        """What the parent must know of the session."""
        session = self.session
        return {
            "input": dataclasses.asdict(session.input),
            "info": dataclasses.asdict(session.info),
            "output": session.output,
        }

    def answer(self, message: bytes) -> bytes:
        """The answer to one request; a failure is an answer, too."""
        try:
            values, arrays = unpacked(message)
            return cast(bytes, getattr(self, f"_{values['do']}")(values, arrays))
        except TumorsegError as error:
            return packed({"failed": told(error, self._is_lost(error))})

    def _infer(self, values: dict[str, Any], arrays: list[Any]) -> bytes:
        return packed({}, self.session.infer(arrays[0]))

    def _open(self, values: dict[str, Any], arrays: list[Any]) -> bytes:
        self._pipeline(values["pipeline"])
        return packed({})

    def _submit(self, values: dict[str, Any], arrays: list[Any]) -> bytes:
        for ticket in values["forgotten"]:
            self._tickets.pop(ticket, None)
        pipeline, ticket = self._pipeline(values["pipeline"]), uuid.uuid4().hex
        self._tickets[ticket] = (pipeline, pipeline.submit(arrays))
        return packed({"ticket": ticket})

    def _collect(self, values: dict[str, Any], arrays: list[Any]) -> bytes:
        if values["ticket"] not in self._tickets:
            raise BackendError(
                "a batch went with the process that had it, expected it in this one: try again"
            )
        pipeline, ticket = self._tickets.pop(values["ticket"])
        answers = pipeline.collect(ticket)
        if isinstance(answers, list):
            logits = (one.logits for one in answers if one.logits is not None)
            masks = (one.masks for one in answers)
            return packed({"close": [one.close for one in answers]}, *masks, *logits)
        return packed({}, cast(Any, answers))

    def _pipeline(self, wanted: dict[str, Any]) -> GpuMasks:
        name = to_json(dict(sorted(wanted.items())))
        if name not in self._pipelines:
            while len(self._pipelines) >= KEPT:  # those of a self-test go, and come again where they are used
                self._pipelines.pop(next(iter(self._pipelines)))
            self._pipelines[name] = GpuMasks(
                cast(OnStream, self.session), self._contract, wanted["largest"], band=wanted["band"],
                logits=wanted["logits"], cache=None if wanted["cache"] is None else Path(wanted["cache"]),
            )  # fmt: skip
        return self._pipelines[name]

    def _is_lost(self, error: TumorsegError) -> bool:
        """Whether this process can never use the GPU again: a library's own error does not say so."""
        gpu = getattr(self.session, "gpu", None)
        if isinstance(error, GpuLostError) or gpu is None or not isinstance(error, BackendError):
            return isinstance(error, GpuLostError)
        try:
            with gpu.current():
                gpu.synchronise()
        except GpuLostError:
            return True
        except BackendError:
            return False
        return False


def told(error: TumorsegError, lost: bool = False) -> dict[str, Any]:
    """An error for `gpu_process`."""
    return {"kind": type(error).__name__, "text": str(error), "lost": lost}


def main(descriptor: int, parent: int) -> None:
    """Serve the parent until it closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    connection = Connection(descriptor)
    try:
        setup = as_object(connection.recv_bytes())
        try:
            server = GpuServer(setup)
        except TumorsegError as error:
            connection.send_bytes(to_json({"failed": told(error)}).encode())
            return
        connection.send_bytes(to_json(server.facts()).encode())
        while True:
            # A fork of the parent can keep the pair of sockets open after the parent's end.
            while not connection.poll(PARENT_CHECK_S):
                if os.getppid() != parent:
                    return
            answer = server.answer(connection.recv_bytes())
            connection.send_bytes(b"")
            connection.send_bytes(answer)
    except (EOFError, ConnectionError):
        sys.exit(0)  # the parent closed its end, or is gone
