"""Any number of images in batches: those of a batch are read side by side, and where a GPU infers, the next
batch is begun before the answers of one are waited for."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from tumorseg_runtime.images.frame import Frame
from tumorseg_runtime.inference.prediction import Image, Prediction, to_frame

if TYPE_CHECKING:
    from tumorseg_runtime.inference.stream import Stages


def predict_batches(
    segmenter: Stages, images: Iterable[Image], timeout_s: float | None
) -> Iterator[Prediction]:
    """`Segmenter.predict_each`. What is wrong with a later image is raised behind the predictions of those
    that are under way."""
    numbered = enumerate(images)
    under_way: deque[tuple[list[Frame], Callable[[], Any]]] = deque()
    fault: Exception | None = None

    def read(one: tuple[int, Image]) -> tuple[Frame, npt.NDArray[Any]]:
        index, image = one
        frame = to_frame(image, f"image {index}")
        return frame, segmenter.prepare(frame)

    with contextlib.ExitStack() as stack:
        side_by_side: Callable[..., Iterator[Any]] = map

        def begin() -> bool:
            """Read and submit a batch; False where there is none."""
            nonlocal side_by_side
            size = segmenter.batch_size
            batch = list(itertools.islice(numbered, size))
            if not batch:
                return False
            if side_by_side is map and len(batch) > 1 and (threads := min(size, _cores())) > 1:
                # OpenCV lets go of the interpreter's lock
                from concurrent.futures import ThreadPoolExecutor  # half a millisecond, not for one image

                pool = ThreadPoolExecutor(threads, "tumorseg-images")
                stack.callback(pool.shutdown, cancel_futures=True)
                side_by_side = pool.map
            frames, tensors = [], []
            for frame, tensor in side_by_side(read, batch):
                frames.append(frame)
                tensors.append(tensor)
            under_way.append((frames, segmenter.submit(tensors, timeout_s=timeout_s)))
            return True

        more = True
        while more or under_way:
            if more:
                try:
                    more = begin()
                except Exception as error:  # noqa: BLE001  # raised behind what is under way
                    more, fault = False, error
            while under_way and (not more or len(under_way) > segmenter.ahead):
                frames, answers = under_way.popleft()
                yield from side_by_side(
                    lambda pair: segmenter.decide(*pair), zip(frames, answers(), strict=True)
                )
        if fault is not None:
            raise fault


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
