"""Pixels in, masks out, on the GPU alone: what crosses the bus is uint8 images up and one bit per pixel down.

A batch is uploaded, preprocessed into the engine's own input, inferred and decided on the GPU; its bits come
down. There are two sets of buffers and three streams (up, compute, down) that are ordered by events, so that
upload, compute and download of neighbouring batches overlap; the host waits once per batch, for its last
event. What is computed for a number of images is captured as a CUDA graph at its second batch. After the
first batches of a size nothing is allocated.

Masks are those of `masks_from_logits` at the network's own size, bit for bit. Logits, probabilities and
margins stay on the GPU: whoever needs them takes the session itself.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.backends.tensorrt import TensorRtSession
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError, OutputError
from tumorseg_runtime.device.cuda import Gpu
from tumorseg_runtime.processing.kernels import cubin_of
from tumorseg_runtime.processing.preprocess_cuda import CudaPreprocessor, Staging, require_same_bits

SETS = 2
THREADS = 128
WORD = 4  # bytes; a word holds the decisions of 32 pixels


class _Set:
    """Buffers and marks of one batch that is under way."""

    def __init__(self, gpu: Gpu, in_bytes: int, logit_bytes: int, bit_bytes: int) -> None:
        self.staging = Staging(gpu)
        self.tensor, self.logits = gpu.device_memory(in_bytes), gpu.device_memory(logit_bytes)
        self.bits, self.host_bits = gpu.device_memory(bit_bytes), gpu.pinned_memory(bit_bytes)
        self.uploaded, self.computed, self.done = gpu.event(), gpu.event(), gpu.event()
        self.graphs: dict[int, Any] = {}  # by number of images; None after its first batch
        self.graphs_of = 0  # bytes of the staging that they read


class GpuMasks:
    """Masks by one TensorRT session, which nothing else may use meanwhile.

    Not for several threads at once: a lock makes their calls wait for one another.
    """

    def __init__(self, session: TensorRtSession, contract: Contract, cache: Path | None = None) -> None:
        """cache: folder for the compiled kernels. Raises BackendError where the GPU gives other bits than the
        CPU, or has too little memory."""
        self._session, self._contract, self._gpu = session, contract, session.gpu
        self._largest = session.input.max_batch or 1
        self._preprocess = CudaPreprocessor(contract, self._gpu, session.input.dtype, cache)
        require_same_bits(self._preprocess)
        self._values = len(contract.classes) * contract.height * contract.width  # logits of an image
        self._words = -(-self._values // 32)
        in_bytes = contract.channels * contract.height * contract.width * self._preprocess.dtype.itemsize
        self._lock = threading.Lock()
        with self._gpu.current():
            self._decide = self._gpu.function(cubin_of(self._gpu.capability, cache), "decide")
            self._up, self._down = self._gpu.more_stream(), self._gpu.more_stream()
            n = self._largest
            sizes = (n * in_bytes, n * self._values * 4, n * (self._words + 1) * WORD)
            self._sets = [_Set(self._gpu, *sizes) for _ in range(SETS)]

    def predict(self, batches: Iterable[Sequence[npt.NDArray[np.uint8]]]) -> Iterator[npt.NDArray[np.uint8]]:
        """Batches of uint8 images, (H, W) or (H, W, 3) of any sizes -> uint8 masks of 0 and 1 (N, K, h, w)
        at the network's own size, in order. The next batch is queued before the masks of one are waited for.

        Raises InputError for a batch that is empty, too large or not of the contract, OutputError for one
        whose logits are not finite, BackendError where the GPU fails.
        """
        with self._lock:
            under_way: deque[tuple[_Set, int]] = deque()
            try:
                for index, images in enumerate(batches):
                    place = self._sets[index % SETS]
                    self._submit(place, images)
                    under_way.append((place, len(images)))
                    if len(under_way) == SETS:
                        yield self._masks(*under_way.popleft())
                while under_way:
                    yield self._masks(*under_way.popleft())
            finally:
                for place, _ in under_way:  # a batch that nobody waits for must not write into the next
                    with self._gpu.current():
                        self._gpu.await_event(place.done)

    def _submit(self, place: _Set, images: Sequence[npt.NDArray[np.uint8]]) -> None:
        """Queue all of a batch; the set's last one was waited for."""
        count, gpu = len(images), self._gpu
        if not 1 <= count <= self._largest:
            raise InputError(f"batch holds {count} images, expected 1 to {self._largest}: split it")
        with gpu.current():
            names = [f"image {index}" for index in range(count)]
            nbytes = self._preprocess.stage(images, names, place.staging)
            gpu.upload(place.staging.device.pointer, place.staging.host.pointer, nbytes, on=self._up)
            gpu.record(place.uploaded, on=self._up)
            gpu.after(place.uploaded)
            self._compute(place, count)
            gpu.record(place.computed)
            gpu.after(place.computed, on=self._down)
            gpu.download(place.host_bits.pointer, place.bits.pointer, self._bytes_down(count), on=self._down)
            gpu.record(place.done, on=self._down)

    def _compute(self, place: _Set, count: int) -> None:
        """Queue kernels and engine, from the second batch of this size on as a graph."""

        def work() -> None:
            contract, gpu = self._contract, self._gpu
            self._preprocess.launch(count, place.staging, place.tensor)
            self._session.enqueue(count, place.tensor.pointer, place.logits.pointer)
            broken = place.bits.pointer + count * self._words * WORD
            gpu.clear(broken, count * WORD)
            threshold = int(np.float32(contract.logit_threshold).view(np.int32))
            gpu.launch(
                self._decide,
                (-(-self._words // THREADS), count, 1),
                (THREADS, 1, 1),
                addresses=(place.logits.pointer, place.bits.pointer, broken),
                numbers=(self._values, threshold),
            )

        if place.graphs_of != place.staging.nbytes:  # it has moved: their addresses are old
            place.graphs, place.graphs_of = {}, place.staging.nbytes
        if count not in place.graphs:
            work()  # TensorRT makes ready at the first call for a shape what cannot be captured
            place.graphs[count] = None
            return
        if place.graphs[count] is None:
            place.graphs[count] = self._gpu.capture(work)
        self._gpu.replay(place.graphs[count])

    def _bytes_down(self, count: int) -> int:
        return count * (self._words + 1) * WORD

    def _masks(self, place: _Set, count: int) -> npt.NDArray[np.uint8]:
        """Wait for a batch: the one time that the host does."""
        with self._gpu.current():
            self._gpu.await_event(place.done)
        words = place.host_bits.array()[: self._bytes_down(count)].view("<u4")
        if broken := np.flatnonzero(words[count * self._words :]).tolist():
            raise OutputError(
                f"images {broken} of a batch have logits that are not finite: use the fp32 artefact"
            )
        packed = words[: count * self._words].view(np.uint8).reshape(count, self._words * WORD)
        bits = np.unpackbits(packed, axis=1, count=self._values, bitorder="little")
        contract = self._contract
        return bits.reshape(count, len(contract.classes), contract.height, contract.width)
