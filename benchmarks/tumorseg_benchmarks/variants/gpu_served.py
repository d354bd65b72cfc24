"""A session on a GPU's stream, timed as `Segmenter` serves with it: pixels up, mask bits down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.session import InProcess
from tumorseg_runtime.device.on_stream import OnStream
from tumorseg_runtime.inference.gpu_masks import GpuMasks
from tumorseg_runtime.processing.postprocess import resize_masks


class ServedOnGpu(InProcess):
    """`infer` is the session's own, for parity; `serve` is what is timed, `parts` are of its last batch."""

    def __init__(self, session: OnStream, contract: Contract) -> None:
        self._session, self._contract = session, contract
        self._masks: GpuMasks | None = None
        self._largest = 0
        self.input, self.info, self.infer = session.input, session.info, session.infer
        self.parts: dict[str, int] = {}

    def serve(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.bool_]]:
        """uint8 (H, W) or (H, W, 3) of any sizes -> bool masks (K, H, W) at each image's own size."""
        if self._masks is None or len(images) > self._largest:
            self._largest = len(images)
            self._masks = GpuMasks(self._session, self._contract, self._largest, timed=True)
        ticket = self._masks.submit(images)
        answers = self._masks.collect(ticket)
        self.parts = ticket.parts
        if not isinstance(answers, np.ndarray):
            return [one.masks for one in answers]
        sizes = [image.shape[:2] for image in images]
        return [resize_masks(one, self._contract, *size) for one, size in zip(answers, sizes, strict=True)]

    def has_graph(self, count: int) -> bool:
        """Whether batches of so many images, of which one was served, are queued as a CUDA graph."""
        return self._masks is not None and self._masks.has_graph(count)

    def close(self) -> None:
        """Give the buffers and the session back."""
        if self._masks is None:
            self._session.close()
        else:
            self._masks.close()
