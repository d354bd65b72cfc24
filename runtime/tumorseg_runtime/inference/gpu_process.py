"""A GPU's session in a process of its own: after a sticky CUDA error (an illegal address, say) every call of
a process on that GPU fails, and only another process can go on.

`gpu_worker` is the child: it opens the same sealed bundle, and keeps the pipelines (`gpu_masks`) that it is
asked for. A child whose GPU is lost, or that dies or is ended after a deadline, is replaced with the next
call. What crosses between the two are pixels and masks, in messages of a JSON object and bytes (`packed`).
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.backends import BACKENDS, open_session, why_unavailable
from tumorseg_runtime.backends.worker import Worker
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core import errors
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.core.records import Format, to_json
from tumorseg_runtime.core.session import HOST, STREAM, InputForm, Session, SessionInfo
from tumorseg_runtime.inference.gpu_answers import Answers, Decided
from tumorseg_runtime.inference.gpu_masks import GpuMasks
from tumorseg_runtime.parity.margin import Band

SCRIPT = Path(__file__).with_name("gpu_worker.py")
LIMIT_S = 300.0  # of one batch; who must notice sooner gives a deadline
START_LIMIT_S = 3600.0  # of a start, in which TensorRT may build an engine: a quarter of an hour on a Jetson
LENGTH_BYTES = 4
_MESSAGE = Format("message between processes", "install tumorseg again", error=BackendError, max_bytes=2**20)


def packed(values: dict[str, Any], *arrays: npt.NDArray[Any]) -> bytes:
    """A message: the length of a JSON object, that object, and arrays whose shapes and dtypes it tells."""
    told = [{"shape": array.shape, "dtype": array.dtype.str} for array in arrays]
    text = to_json({**values, "arrays": told}).encode()
    blobs = (np.ascontiguousarray(array).tobytes() for array in arrays)
    return b"".join((len(text).to_bytes(LENGTH_BYTES, "little"), text, *blobs))


def unpacked(message: bytes) -> tuple[dict[str, Any], list[npt.NDArray[Any]]]:
    """The object and the arrays, read-only, of a message."""
    start = LENGTH_BYTES + int.from_bytes(message[:LENGTH_BYTES], "little")
    values = as_object(message[LENGTH_BYTES:start])
    arrays = []
    for told in values.pop("arrays"):
        dtype, shape = np.dtype(told["dtype"]), tuple(told["shape"])
        count = int(np.prod(shape))
        arrays.append(np.frombuffer(message, dtype, count, start).reshape(shape))
        start += count * dtype.itemsize
    return values, arrays


def as_object(text: bytes) -> dict[str, Any]:
    """A JSON object of the other process; raises BackendError."""
    values: dict[str, Any] = _MESSAGE.parse(text, "a message", dict[str, Any])
    return values


def open_apart(
    bundle: Bundle, *, backend: str, device: str, precision: str, threads: int | None,
    device_folder: Path | None,
) -> Session:  # fmt: skip
    """`backends.open_session` of a GPU, in a process of its own. Raises what it raises."""
    options = {"backend": backend, "device": device, "precision": precision, "threads": threads}
    if backend not in BACKENDS or why_unavailable(backend, device):  # it says so
        return open_session(bundle, device_folder=device_folder, **options)  # type: ignore[arg-type]
    folder = None if device_folder is None else str(device_folder.resolve())
    setup = {
        "root": str(bundle.root.resolve()),
        "digest": bundle.digest(),
        "device_folder": folder,
        **options,
    }
    return GpuProcess(Worker(f"{backend} on '{device}'", SCRIPT, setup, LIMIT_S, start_limit_s=START_LIMIT_S))


def masks_of(
    session: Any, contract: Contract, largest: int, band: Band | None, logits: bool | str, cache: Path | None
) -> GpuMasks | MasksApart:
    """What serves on a session of a GPU, in this process or apart; arguments as of `GpuMasks`."""
    width = None if band is None else band.logits
    if isinstance(session, GpuProcess):
        return session.masks(largest, width, logits, cache)
    return GpuMasks(session, contract, largest, band=width, logits=logits, cache=cache)


class GpuProcess:
    """A `Session` that hands its batches to a child. `masks` gives what serves in place of `GpuMasks`."""

    restarts = True

    def __init__(self, worker: Worker) -> None:
        self._worker, facts = worker, worker.facts
        if failed := facts.get("failed"):
            worker.close()
            raise _error(failed)
        form = facts["input"]
        memory = (HOST, STREAM) if STREAM in form["memory"] else (HOST,)
        self.input = InputForm(**{**form, "memory": memory})
        self.info = SessionInfo(**facts["info"])
        self.output: str = facts["output"]

    def infer(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(N, C, H, W) of `input.dtype` -> what the child's session gives for it, in host memory."""
        return np.array(self.ask({"do": "infer"}, batch)[1][0])

    def masks(self, largest: int, band: float | None, logits: bool | str, cache: Path | None) -> MasksApart:
        """As `GpuMasks` of the child's session; raises what that raises."""
        folder = None if cache is None else str(cache.resolve())
        pipeline = {"largest": largest, "band": band, "logits": logits, "cache": folder}
        self.ask({"do": "open", "pipeline": pipeline})
        return MasksApart(self, pipeline)

    def ask(self, values: dict[str, Any], *arrays: npt.NDArray[Any]) -> tuple[dict[str, Any], list[Any]]:
        """The child's answer; raises the error that it tells, and ends it where its GPU is lost."""
        found, answers = unpacked(self._worker.ask(packed(values, *arrays)))
        if failed := found.get("failed"):
            if failed["lost"]:
                self._worker.interrupt()
            raise _error(failed)
        return found, answers

    def interrupt(self) -> None:
        """End the child now: a call that waits for it raises BackendError, the next one has another."""
        self._worker.interrupt()

    def close(self) -> None:
        """End the child; later calls raise BackendError."""
        self._worker.close()


@dataclasses.dataclass(frozen=True, eq=False)
class _Sent:
    """A batch that the child has queued. ticket: of no other batch, of this child or another."""

    ticket: str


class MasksApart:
    """`GpuMasks` in a child: the same answers, and the same overlap of neighbouring batches."""

    restarts = True

    def __init__(self, session: GpuProcess, pipeline: dict[str, Any]) -> None:
        self._session, self._pipeline = session, pipeline
        self._lock = threading.Lock()
        self._forgotten: list[str] = []  # tickets that nobody holds: the child still keeps their masks
        self.input, self.info, self.output = session.input, session.info, session.output

    def submit(self, images: Sequence[npt.NDArray[np.uint8]]) -> _Sent:
        """Queue a batch of uint8 images for `collect`."""
        with self._lock:  # the collector only adds
            forgotten = self._forgotten[:]
            del self._forgotten[: len(forgotten)]
        asked = {"do": "submit", "pipeline": self._pipeline, "forgotten": forgotten}
        sent = _Sent(self._session.ask(asked, *images)[0]["ticket"])
        weakref.finalize(sent, self._forgotten.append, sent.ticket).atexit = False
        return sent

    def collect(self, sent: _Sent) -> Answers:
        """Answers of a batch, in order; raises BackendError where the child that had it is gone."""
        found, arrays = self._session.ask({"do": "collect", "ticket": sent.ticket})
        if "close" not in found:
            return np.array(arrays[0])  # logits, or masks of a deploy form
        count = len(found["close"])
        logits = arrays[count:] or [None] * count
        return [
            Decided(np.array(mask), close, None if own is None else np.array(own))
            for mask, close, own in zip(arrays[:count], found["close"], logits, strict=True)
        ]

    def infer(self, batch: Sequence[npt.NDArray[np.uint8]]) -> Any:
        """`submit` and `collect` of one batch."""
        return self.collect(self.submit(batch))

    def interrupt(self) -> None:
        """End the child now."""
        self._session.interrupt()

    def close(self) -> None:
        """End the child."""
        self._session.close()


def _error(failed: dict[str, Any]) -> errors.TumorsegError:
    """The child's error, of its own class."""
    kind = getattr(errors, str(failed["kind"]), errors.BackendError)
    error: errors.TumorsegError = kind(failed["text"])
    return error
