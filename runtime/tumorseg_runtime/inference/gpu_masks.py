"""Pixels in, masks out, on the GPU alone: what crosses the bus is uint8 images up and one bit per pixel down.

A batch is uploaded, preprocessed into the engine's own input, inferred and decided at each image's own size;
its bits come down. There are two sets of buffers and three streams (up, compute, down) that are
ordered by events, so that upload, compute and download of neighbouring batches overlap; the host waits once
per batch, for its last event. What is computed for a number of images is captured as a CUDA graph behind its
first batch, where it can be. Once a batch of a size, and images as large, were seen in each set, nothing is
allocated.

Masks and the share of close pixels are those of `tumorseg_runtime.processing.postprocess`, bit for bit: an
image of which a decision hangs on the rounding of floats is decided on the host, from its logits, which come
down for that alone. `logits=True` brings down the logits of all images instead, and the host decides;
`logits="float16"` brings them as FP16 beside the masks.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError, OutputError, TumorsegError
from tumorseg_runtime.core.session import HALVES, LOGITS
from tumorseg_runtime.device.cuda import Gpu, Pair
from tumorseg_runtime.device.on_stream import OnStream
from tumorseg_runtime.processing.decide_cuda import FOUND, WORD, Decider
from tumorseg_runtime.processing.postprocess import close_share, masks_from_logits
from tumorseg_runtime.processing.preprocess_cuda import CudaPreprocessor, require_same_bits

SETS = 2
PARTS = ("upload", "compute", "download")
HALF = 2  # bytes of a logit in FP16
CLOSE_WAIT_S = 1.0  # for a call that may hang: what it holds then goes with it


@dataclasses.dataclass(frozen=True, eq=False)
class Decided:
    """An image that the GPU decided. masks: bool (K, H, W) at its own size. close: share of its decisions
    within the band, 0..1; None without a band. logits: float32 (K, h, w) where FP16 came down."""

    masks: npt.NDArray[np.bool_]
    close: float | None
    logits: npt.NDArray[np.float32] | None = None


Answers = Sequence[Decided] | npt.NDArray[np.float32]


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

    def __init__(self, gpu: Gpu, in_bytes: int, logit_bytes: int, timed: bool) -> None:
        self.up, self.back, self.halves = Pair(gpu), Pair(gpu), Pair(gpu)
        self.tensor, self.logits = gpu.device_memory(in_bytes), gpu.device_memory(logit_bytes)
        self.marks = [gpu.event(timed=timed) for _ in range(4)]
        self.begun, self.uploaded, self.computed, self.done = self.marks
        self.graphs: dict[int, Any] = {}  # by number of images; None where there can be none
        self.graphs_of = (0, 0)  # bytes of `up` and `back`, whose addresses they hold
        self.ticket: Ticket | None = None


class GpuMasks:
    """A `Session` whose batches are the images' own pixels, on a session that can be queued on a stream and
    that nothing else may use meanwhile. Any thread may submit and collect."""

    output, restarts = LOGITS, False

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
        self._session, self._contract, self._gpu, self._band = session, contract, session.gpu, band
        self.input, self.info, self._logits = session.input, session.info, logits is True
        self._halves = logits == HALVES
        self._largest = largest
        self._preprocess = CudaPreprocessor(contract, self._gpu, session.input.dtype, cache)
        require_same_bits(self._preprocess)
        self._values = len(contract.classes) * contract.height * contract.width  # logits of an image
        in_bytes = contract.channels * contract.height * contract.width * self._preprocess.dtype.itemsize
        self._lock, self._timed = threading.Lock(), timed
        self._turn = 0
        with self._gpu.current():
            self._decider = Decider(contract, self._gpu, band, cache)
            self._up, self._down = self._gpu.more_stream(), self._gpu.more_stream()
            n = self._largest
            sizes = (n * in_bytes, n * self._values * 4)
            self._sets = [_Set(self._gpu, *sizes, timed) for _ in range(SETS)]
            self._scratch = Pair(self._gpu)  # for logits of single images
            for place in self._sets:
                place.halves.require(n * self._values * HALF if self._halves else 0)
            if not logits:
                self._decider.require_same_masks(self._sets[0].up, self._sets[0].logits, self._sets[0].back)

    def submit(self, images: Sequence[npt.NDArray[np.uint8]]) -> Ticket:
        """Queue a batch of uint8 images, (H, W) or (H, W, 3) of any sizes, for `collect`.

        The batch before the last one is waited for if nobody has. Raises InputError for one that is empty,
        too large or not of the contract, BackendError where the GPU fails.
        """
        if not 1 <= len(images) <= self._largest:
            raise InputError(f"batch holds {len(images)} images, expected 1 to {self._largest}: split it")
        with self._lock:
            place = self._sets[self._turn % SETS]
            if place.ticket is not None:
                self._finish(place.ticket)
            ticket = Ticket(place, [image.shape[:2] for image in images])
            with self._gpu.current():
                self._queue(place, images, ticket.sizes)
            place.ticket = ticket
            self._turn += 1
            return ticket

    def collect(self, ticket: Ticket) -> Answers:
        """Answers of a batch, in order: `Decided`, or float32 logits (N, K, h, w) where those come down.

        Raises OutputError for a batch whose logits are not finite, BackendError where the GPU fails.
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

    def interrupt(self) -> None:
        """Nothing ends work on a GPU."""

    def close(self) -> None:
        """Give everything back; not what a call holds that hangs."""
        if self._lock.acquire(timeout=CLOSE_WAIT_S):
            try:
                with self._gpu.current():
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
        beside = None
        nbytes_down = count * self._values * 4
        if not self._logits:
            beside, words = self._decider.outlines(sizes)
            nbytes_down = self._largest * FOUND.itemsize + words * WORD
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
        source = place.logits if self._logits else place.back.device
        gpu.download(place.back.host.pointer, source.pointer, nbytes_down, on=self._down)
        if self._halves:
            pair, nbytes = place.halves, count * self._values * HALF
            gpu.download(pair.host.pointer, pair.device.pointer, nbytes, on=self._down)
        gpu.record(place.done, on=self._down)

    def _compute(self, place: _Set, count: int) -> None:
        """Queue kernels and network, from the second batch of this size on as a graph."""

        def work() -> None:
            self._preprocess.launch(count, place.up, place.tensor)
            self._session.enqueue(count, place.tensor.pointer, place.logits.pointer)
            if not self._logits:
                outlines = place.up.device.pointer + self._preprocess.beside_at(count)
                self._decider.launch(count, self._largest, place.logits.pointer, outlines, place.back)
            if self._halves:
                halves = place.halves.device.pointer
                self._decider.launch_halves(count * self._values, place.logits.pointer, halves)

        if place.graphs_of != (now := (place.up.nbytes, place.back.nbytes)):  # they have moved
            place.graphs, place.graphs_of = {}, now
        if place.graphs.get(count) is not None:
            self._gpu.replay(place.graphs[count])
            return
        work()
        if count not in place.graphs:
            # At once: another shape would undo what the network made ready for this one outside of a capture.
            place.graphs[count] = self._gpu.capture(work)

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
                self._session.served(len(ticket.sizes))
                ticket.answers = (
                    self._read_logits(place, ticket) if self._logits else self._read(place, ticket)
                )
                if self._halves and isinstance(ticket.answers, list):
                    ticket.answers = self._with_halves(place, ticket.answers)
        except TumorsegError as error:
            ticket.error = error

    def _read_logits(self, place: _Set, ticket: Ticket) -> npt.NDArray[np.float32]:
        contract, count = self._contract, len(ticket.sizes)
        flat = place.back.host.array()[: count * self._values * 4].view(np.float32)
        logits = flat.reshape(count, len(contract.classes), contract.height, contract.width).copy()
        self._require_finite(np.flatnonzero(~np.isfinite(logits).all(axis=(1, 2, 3))).tolist())
        return logits

    def _read(self, place: _Set, ticket: Ticket) -> list[Decided]:
        found, masks = self._decider.read(place.back.host.array(), self._largest, ticket.sizes)
        self._require_finite(np.flatnonzero(found["broken"]).tolist())
        return [
            self._by_host(place, index, size)
            if unsure
            else Decided(mask, None if self._band is None else int(close) / mask.size)
            for index, (mask, size, (_, unsure, close)) in enumerate(
                zip(masks, ticket.sizes, found.tolist(), strict=True)
            )
        ]

    def _with_halves(self, place: _Set, answers: list[Decided]) -> list[Decided]:
        contract = self._contract
        flat = place.halves.host.array()[: len(answers) * self._values * HALF].view(np.float16)
        shape = (len(answers), len(contract.classes), contract.height, contract.width)
        logits = flat.reshape(shape).astype(np.float32)
        return [dataclasses.replace(one, logits=own) for one, own in zip(answers, logits, strict=True)]

    def _by_host(self, place: _Set, index: int, size: tuple[int, int]) -> Decided:
        """Decide one image from its logits, which are still in the set's memory."""
        contract, nbytes = self._contract, self._values * 4
        self._scratch.require(nbytes)
        source = place.logits.pointer + index * nbytes
        self._gpu.download(self._scratch.host.pointer, source, nbytes, on=self._down)
        self._gpu.record(place.done, on=self._down)
        self._gpu.await_event(place.done)
        flat = self._scratch.host.array()[:nbytes].view(np.float32)
        logits = flat.reshape(len(contract.classes), contract.height, contract.width)
        close = None if self._band is None else close_share(logits, contract, *size, self._band)
        return Decided(masks_from_logits(logits, contract, *size), close)

    def _require_finite(self, broken: list[int]) -> None:
        if broken:
            info = self.info
            raise OutputError(
                f"{info.backend} on {info.device} in {info.precision} returned logits that are not finite "
                f"for images {broken} of a batch: use the fp32 artefact"
            )
