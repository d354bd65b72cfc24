"""Pixels in, masks out, on the GPU alone: what crosses the bus is uint8 images up and one bit per pixel down.

A batch is uploaded, preprocessed into the network's own input, inferred and decided (`gpu_answers`); its bits
come down. There are two sets of buffers and three streams (up, compute, down) that are ordered by events, so
that upload, compute and download of neighbouring batches overlap; the host waits once per batch, for its last
event. What is computed for a number of images is captured as a CUDA graph behind its first batch, where it
can be. Once a batch of a size, and images as large, were seen in each set, nothing is allocated.

Masks and the share of close pixels are those of `tumorseg_runtime.processing.postprocess`, bit for bit: an
image of which a decision hangs on the rounding of floats is decided on the host, from its logits, which come
down for that alone. `logits=True` brings down the logits of all images instead, and the host decides;
`logits="float16"` brings them as FP16 beside the masks. A deploy form has decided already: its masks come
down.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, InputError, TumorsegError
from tumorseg_runtime.core.session import HALVES, MASKS
from tumorseg_runtime.device.cuda import Gpu, Pair
from tumorseg_runtime.device.graphs import capture
from tumorseg_runtime.device.memory import Handle
from tumorseg_runtime.device.on_stream import OnStream
from tumorseg_runtime.device.stream_session import CLOSE_WAIT_S
from tumorseg_runtime.inference.gpu_answers import Answer, Answers, Decisions, LogitsDown, NetworkMasks
from tumorseg_runtime.processing.preprocess_cuda import CudaPreprocessor, require_same_bits

SETS = 2
PARTS = ("upload", "compute", "download")


class Ticket:
    """A batch that was submitted. answers, error: one of them is there when it was waited for. parts:
    nanoseconds of upload, compute (all kernels) and download, where they are timed."""

    def __init__(self, place: _Set, sizes: list[tuple[int, int]]) -> None:
        self.place: _Set | None = place
        self.sizes = sizes
        self.answers: Answers | None = None
        self.parts: dict[str, int] = {}
        self.error: TumorsegError | None = None


class _Set:
    """Buffers and marks of one batch that is under way."""

    def __init__(self, gpu: Gpu, in_bytes: int, answer_bytes: int, timed: bool) -> None:
        self.up, self.back, self.halves = Pair(gpu), Pair(gpu), Pair(gpu)
        self.tensor, self.answer = gpu.device_memory(in_bytes), gpu.device_memory(answer_bytes)
        self.marks = [gpu.event(timed=timed) for _ in range(4)]
        self.begun, self.uploaded, self.computed, self.done = self.marks
        self.graphs: dict[int, Handle | None] = {}  # by number of images; None where there can be none
        self.graphs_of = (0, 0)  # the addresses that they hold of `up` and `back`, which grow
        self.ticket: Ticket | None = None


class GpuMasks:
    """A `Session` whose batches are the images' own pixels, on a session that can be queued on a stream and
    that nothing else may use meanwhile. Any thread may submit and collect."""

    restarts = False

    def __init__(
        self,
        session: OnStream,
        contract: Contract,
        largest: int,
        *,
        band: float | None = None,
        logits: bool | str = False,
        cache: Path | None = None,
        timed: bool = False,
    ) -> None:
        """largest: batch that is submitted. band: around the threshold, in logits, for `Decided.close`.
        logits: bring them down, too: HALVES for FP16; True for FP32, of which the host decides.
        cache: folder for the compiled kernels. timed: for `Ticket.parts`.

        Raises BackendError where the GPU gives other bits than the CPU, or has too little memory.
        """
        self._session, self._gpu, self._timed = session, session.gpu, timed
        self.input, self.info, self.output = session.input, session.info, session.output
        self._largest = largest
        form = session.input
        self._preprocess = CudaPreprocessor(contract, self._gpu, form.dtype, cache, form.channels)
        require_same_bits(self._preprocess)
        in_bytes = int(np.prod(form.shape(contract))) * self._preprocess.dtype.itemsize
        self._lock, self._turn = threading.Lock(), 0
        with self._gpu.current():
            self._answer = self._answer_of(contract, band, logits, cache)
            self._up, self._down = self._gpu.more_stream(), self._gpu.more_stream()
            n = max(largest, session.smallest)
            sizes = (n * in_bytes, n * self._answer.nbytes)
            self._sets = [_Set(self._gpu, *sizes, timed) for _ in range(SETS)]
            for place in self._sets:
                self._answer.prepare(place)
            self._answer.require_right(self._sets[0], self._sets[0].up)

    def _answer_of(
        self, contract: Contract, band: float | None, logits: bool | str, cache: Path | None
    ) -> Answer:
        gpu, info, largest = self._gpu, self.info, self._largest
        if self.output == MASKS:
            return NetworkMasks(contract, gpu, info, largest, cache)
        if logits is True:
            return LogitsDown(contract, gpu, info)
        return Decisions(contract, gpu, info, largest, band, logits == HALVES, cache)

    def submit(self, images: Sequence[npt.NDArray[np.uint8]]) -> Ticket:
        """Queue a batch of uint8 images, (H, W) or (H, W, 3) of any sizes, for `collect`.

        The batch before the last one is waited for if nobody has. Raises InputError for one that is empty,
        too large or not of the contract, BackendError where the GPU fails.
        """
        if not 1 <= len(images) <= self._largest:
            raise InputError(f"batch holds {len(images)} images, expected 1 to {self._largest}: split it")
        with self._lock:
            if not self._sets:
                raise BackendError(f"{self.info.backend} on {self.info.device} is closed: open it again")
            place = self._sets[self._turn % SETS]
            if place.ticket is not None:
                self._finish(place.ticket)
            ticket = Ticket(place, [image.shape[:2] for image in images])
            with self._gpu.current():
                try:
                    self._queue(place, images, ticket.sizes)
                except BaseException:  # a part may be under way, and the next batch writes its memory
                    with contextlib.suppress(TumorsegError):
                        self._gpu.synchronise(on=self._up)
                        self._gpu.synchronise()
                    raise
            place.ticket = ticket
            self._turn += 1
            return ticket

    def collect(self, ticket: Ticket) -> Answers:
        """Answers of a batch, in order: `Decided`, or (N, K, h, w) float32 logits, where those come down, or
        uint8 masks of a deploy form.

        Raises OutputError for answers of which no mask is made, BackendError where the GPU fails.
        """
        with self._lock:
            self._finish(ticket)
        if ticket.error is not None:
            raise ticket.error
        assert ticket.answers is not None
        return ticket.answers

    def infer(self, batch: Sequence[npt.NDArray[np.uint8]]) -> Any:
        """`submit` and `collect` of one batch."""
        return self.collect(self.submit(batch))

    def has_graph(self, count: int) -> bool:
        """Whether batches of so many images are queued as a CUDA graph, once one was seen in each set."""
        return any(place.graphs.get(count) is not None for place in self._sets)

    def interrupt(self) -> None:
        """Nothing ends work on a GPU."""

    def close(self) -> None:
        """Give everything back; not what a call holds that hangs."""
        if self._lock.acquire(timeout=CLOSE_WAIT_S):
            try:
                for place in self._sets:
                    if place.ticket is not None:
                        self._finish(place.ticket)
                self._sets = []
            finally:
                self._lock.release()
            self._session.close()

    def _queue(
        self, place: _Set, images: Sequence[npt.NDArray[np.uint8]], sizes: list[tuple[int, int]]
    ) -> None:
        count, gpu = len(images), self._gpu
        names = [f"image {index}" for index in range(count)]
        beside, nbytes_down = self._answer.plan(sizes)
        nbytes = self._preprocess.stage(images, names, place.up, beside)
        place.back.require(nbytes_down)
        if self._timed:
            gpu.record(place.begun, on=self._up)
        gpu.upload(place.up.device.pointer, place.up.host.pointer, nbytes, on=self._up)
        gpu.record(place.uploaded, on=self._up)
        gpu.after(place.uploaded)
        self._compute(place, count)
        gpu.record(place.computed)
        gpu.after(place.computed, on=self._down)
        self._answer.bring(place, count, nbytes_down, self._down)
        gpu.record(place.done, on=self._down)

    def _compute(self, place: _Set, count: int) -> None:
        """Queue kernels and network, from the second batch of this size on as a graph. A network that takes
        no batch so small gets what the set's memory holds besides, and its answers are not looked at."""
        beside = place.up.device.pointer + self._preprocess.beside_at(count)

        def work() -> None:
            self._preprocess.launch(count, place.up, place.tensor)
            batch = max(count, self._session.smallest)
            self._session.enqueue(batch, place.tensor.pointer, place.answer.pointer)
            self._answer.launch(count, place, beside)

        if place.graphs_of != (now := (place.up.device.pointer, place.back.device.pointer)):
            place.graphs, place.graphs_of = {}, now
        if (graph := place.graphs.get(count)) is not None:
            self._gpu.replay(graph)
            return
        work()
        if count not in place.graphs:
            # At once: another shape would undo what the network made ready for this one outside of a capture.
            place.graphs[count] = capture(self._gpu, work)

    def _finish(self, ticket: Ticket) -> None:
        """Wait for a batch, if that was not done: the one time that the host does. The lock is held."""
        place = ticket.place
        if place is None:
            return
        ticket.place = place.ticket = None
        try:
            with self._gpu.current():
                self._gpu.await_event(place.done)
                if self._timed:
                    spans = map(self._gpu.nanoseconds, place.marks, place.marks[1:])
                    ticket.parts = dict(zip(PARTS, spans, strict=True))
                self._session.served(max(len(ticket.sizes), self._session.smallest))
                ticket.answers = self._answer.read(place, ticket.sizes, self._down)
        except TumorsegError as error:
            ticket.error = error
