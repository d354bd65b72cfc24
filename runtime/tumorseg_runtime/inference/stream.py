"""Streams: four threads pass images on, so that decoding, inference and postprocessing overlap.

    source -> [pending] -> decode, preprocess -> [ready] -> infer -> [inferred] -> postprocess -> [results]

- Order is kept. Only images that wait in `pending` are ever dropped, before anything was spent on them.
- Memory is bounded: besides `max_pending` images, at most 3 * batch_size + 5 are under way.
- What is wrong with one image (InputError, OutputError), and a backend that failed on it (BackendError),
  is that image's result; the stream goes on. Whatever the source itself raises ends the stream and is
  raised after the results of the images before it.
- The threads end when the source is exhausted or the consumer stops: at `close()`, which a `for` loop
  that is left by `break` calls when the generator is forgotten. A source that blocks for ever keeps its
  thread until it returns; nothing else waits for it.
- A path may hold several frames: each has a result, all with the place of the path.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy.typing as npt

from tumorseg_runtime.core.errors import InputError, OutputError, TumorsegError
from tumorseg_runtime.images.frame import Frame
from tumorseg_runtime.images.frames import read_frames
from tumorseg_runtime.inference.prediction import Image, Prediction, to_frame
from tumorseg_runtime.inference.session_guard import check_timeout
from tumorseg_runtime.inference.stage_queue import CancelledError, StageQueue

STAGES = ("pending", "decode", "preprocess", "infer", "postprocess", "total")
POLICIES = ("oldest", "block")
SOURCE_GRACE_S = 1.0  # how long `close` waits for a source that may be blocked


class Stages(Protocol):
    """The three stages of a prediction, as `Segmenter` has them."""

    @property
    def batch_size(self) -> int:
        """Most frames of one inference."""

    def prepare(self, frame: Frame) -> npt.NDArray[Any]:
        """What is made of one frame alone."""

    @property
    def ahead(self) -> int:
        """Further batches that may be submitted before the answers of one are waited for."""

    def submit(
        self, prepared: Sequence[npt.NDArray[Any]], *, timeout_s: float | None = None
    ) -> Callable[[], Sequence[Any]]:
        """Begin an inference of prepared frames: what waits for the answers, one for each."""

    def decide(self, frame: Frame, answer: Any) -> Prediction:
        """Masks and lesions of one frame from its answer."""


@dataclasses.dataclass(frozen=True, eq=False)
class StreamResult:
    """What became of one image; exactly one of `prediction` and `error` is set.

    index: place among all images of the source, the dropped ones counted.
    dropped: images dropped between the result before and this one.
    seconds: time by stage (STAGES): 'pending' from the image's arrival to its decoding, 'infer' that of the
        whole batch it was in, 'total' from arrival to result, waiting between stages included.
    """

    index: int
    name: str
    prediction: Prediction | None
    error: TumorsegError | None
    dropped: int
    seconds: dict[str, float]


@dataclasses.dataclass
class _Work:
    """One image on its way."""

    index: int
    image: Image
    arrived: float
    name: str
    frame: Frame | None = None
    tensor: npt.NDArray[Any] | None = None
    answer: Any = None
    prediction: Prediction | None = None
    error: TumorsegError | None = None
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)


def run_stream(
    segmenter: Stages,
    images: Iterable[Image],
    *,
    max_pending: int,
    drop: str,
    batch_size: int,
    timeout_s: float | None,
) -> Generator[StreamResult, None, None]:
    """`Segmenter.stream`; raises InputError for a number or policy that is not usable."""
    if max_pending < 1:
        raise InputError(f"max_pending is {max_pending}, expected 1 or more")
    if drop not in POLICIES:
        raise InputError(f"drop is '{drop}', expected one of {', '.join(POLICIES)}")
    if not 1 <= batch_size <= segmenter.batch_size:
        raise InputError(
            f"batch size is {batch_size}, expected 1 to {segmenter.batch_size}, the segmenter's own"
        )
    check_timeout(timeout_s)
    return _Pipeline(segmenter, max_pending, drop == "oldest", batch_size, timeout_s).run(images)


class _Pipeline:
    def __init__(
        self,
        segmenter: Stages,
        max_pending: int,
        drop_oldest: bool,
        batch_size: int,
        timeout_s: float | None,
    ) -> None:
        self.segmenter = segmenter
        self.batch_size = batch_size
        self.timeout_s = timeout_s
        self.pending: StageQueue[_Work] = StageQueue(max_pending, drop_oldest=drop_oldest)
        self.ready: StageQueue[_Work] = StageQueue(batch_size)
        self.inferred: StageQueue[_Work] = StageQueue(batch_size)
        self.results: StageQueue[_Work] = StageQueue(1)
        self.failure: BaseException | None = None

    def run(self, images: Iterable[Image]) -> Generator[StreamResult, None, None]:
        stages: list[tuple[Callable[[], None], StageQueue[_Work]]] = [
            (lambda: self.take_in(images), self.pending),
            (self.prepare, self.ready),
            (self.infer, self.inferred),
            (self.decide, self.results),
        ]
        threads = [
            threading.Thread(target=self.stage, args=stage, name="tumorseg-stream", daemon=True)
            for stage in stages
        ]
        for thread in threads:
            thread.start()
        last = -1
        try:
            for task in self.results:
                dropped = max(0, task.index - last - 1)
                last = task.index
                yield StreamResult(task.index, task.name, task.prediction, task.error, dropped, task.seconds)
        except CancelledError:
            pass  # by a stage that failed: raised below
        finally:
            self.cancel()
            threads[0].join(SOURCE_GRACE_S)
            for thread in threads[1:]:
                thread.join()
        if self.failure is not None:
            raise self.failure

    def stage(self, work: Callable[[], None], output: StageQueue[_Work]) -> None:
        """Run one stage on its thread. The end of the source ends the others in turn; a fault in any other
        stage, which no image explains, stops all at once."""
        try:
            work()
            output.finish()
        except CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001  # raised in the consumer's thread
            self.failure = error
            if output is self.pending:
                output.finish()
            else:
                self.cancel()

    def cancel(self) -> None:
        for queue in (self.pending, self.ready, self.inferred, self.results):
            queue.cancel()

    def take_in(self, images: Iterable[Image]) -> None:
        for index, image in enumerate(images):
            name = str(image) if _is_path(image) else getattr(image, "name", f"image {index}")
            self.pending.put(_Work(index, image, time.monotonic(), name))

    def prepare(self) -> None:
        for task in self.pending:
            start = time.monotonic()
            frames = self.frames(task)
            while True:
                one = dataclasses.replace(task, seconds={"pending": start - task.arrived})
                try:
                    with _Timed(one, "decode"):
                        one.frame = next(frames, None)
                    if one.frame is None:
                        break
                    one.name = one.frame.name
                    with _Timed(one, "preprocess"):
                        one.tensor = self.segmenter.prepare(one.frame)
                except TumorsegError as error:
                    one.error = error
                self.ready.put(one)
                if one.frame is None:
                    break  # the file is damaged: nothing follows

    def frames(self, task: _Work) -> Iterator[Frame]:
        if _is_path(task.image):
            yield from read_frames(task.image)  # type: ignore[arg-type]
        else:
            yield to_frame(task.image, task.name)

    def infer(self) -> None:
        """Batches of what is ready. Where one may be under way beside another, the next is begun before the
        answers of one are waited for, if it is ready: nothing waits for an image that is not there yet."""
        under_way: deque[tuple[list[_Work], _Begun]] = deque()
        while True:
            if len(under_way) <= self.segmenter.ahead and (
                batch := self.ready.take(self.batch_size, wait=not under_way)
            ):
                tasks = [task for task in batch if task.tensor is not None]
                under_way.append((batch, _Begun(self.segmenter, tasks, self.timeout_s)))
            elif under_way:
                batch, begun = under_way.popleft()
                begun.finish()
                for task in batch:
                    task.tensor = None
                    self.inferred.put(task)
            else:
                return

    def decide(self) -> None:
        for task in self.inferred:
            if task.answer is not None and task.frame is not None:
                with _Timed(task, "postprocess"):
                    task.prediction = self.segmenter.decide(task.frame, task.answer)
            task.seconds["total"] = time.monotonic() - task.arrived
            self.results.put(task)


class _Begun:
    """A batch that was submitted."""

    def __init__(self, segmenter: Stages, batch: list[_Work], timeout_s: float | None) -> None:
        self.segmenter, self.batch, self.timeout_s = segmenter, batch, timeout_s
        self.start = time.monotonic()
        self.answers: Callable[[], Sequence[Any]] = list
        self.error: TumorsegError | None = None
        if not batch:
            return
        try:
            tensors = [task.tensor for task in batch if task.tensor is not None]
            self.answers = segmenter.submit(tensors, timeout_s=timeout_s)
        except TumorsegError as error:
            self.error = error

    def finish(self) -> None:
        """Wait for the answers; each task then has its own, or its error."""
        try:
            if self.error is not None:
                raise self.error
            for task, one in zip(self.batch, self.answers(), strict=True):
                task.answer = one
        except OutputError as error:
            if len(self.batch) > 1:  # whose logits are broken shows when each runs alone
                for task in self.batch:
                    _Begun(self.segmenter, [task], self.timeout_s).finish()
                return
            self.batch[0].error = error
        except TumorsegError as error:
            for task in self.batch:
                task.error = error
        for task in self.batch:
            task.seconds["infer"] = time.monotonic() - self.start


class _Timed:
    """Adds the seconds of a block to a task's stage, whether it ends well or not."""

    def __init__(self, task: _Work, stage: str) -> None:
        self.task, self.stage = task, stage

    def __enter__(self) -> None:
        self.start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.task.seconds[self.stage] = time.monotonic() - self.start


def _is_path(image: Image) -> bool:
    return isinstance(image, str) or hasattr(image, "__fspath__")
