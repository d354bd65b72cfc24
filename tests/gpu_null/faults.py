"""Programs in which something goes wrong on the null GPU, or comes in an order that nobody planned."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gpu_null import masks
from gpu_null.engines import open_stand_in
from gpu_null.masks import BATCH, OWN, SIZES, door, images, same, sealed
from gpu_null.null import Null
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import TumorsegError
from tumorseg_runtime.core.records import to_json
from tumorseg_runtime.device.cuda import open_gpu
from tumorseg_runtime.device.engines import Profile
from tumorseg_runtime.inference.gpu_process import GpuProcess, open_apart
from tumorseg_runtime.inference.gpu_worker import GpuServer
from tumorseg_runtime.inference.segmenter import Segmenter

OPTIONS = {"backend": "onnxruntime", "device": "cuda", "precision": "fp32", "threads": None}


def message(call: Callable[[], object]) -> str:
    """The error that a call raises, '' where it raises none."""
    try:
        call()
    except TumorsegError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def stand_in(**options: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return open_stand_in(Path(folder), **options)[1]


def bundle_of(copy: Path, root: Path) -> Bundle:
    """A sealed bundle of the graph that copies, whose contract is that of `masks` from here on."""
    bundle = Bundle.open(sealed(copy, root))
    masks.CONTRACT = bundle.contract
    return bundle


def closed() -> tuple[dict[str, int], list[str]]:
    """What is left on the GPU after `close`, while the program still holds the segmenter; and what is said
    to who uses it again, or the session."""
    null, on = Null(), stand_in()
    segmenter, given = door(on, logits=False), images(6, SIZES)
    said = [_used_when_closed(stand_in())]
    del on
    segmenter.predict(given)
    segmenter.close()
    segmenter.close()
    live = {name: count for name, count in null.counts().items() if name.startswith("live_")}
    return live, [*said, message(lambda: segmenter.predict(given))]


def _used_when_closed(session: Any) -> str:
    session.close()
    session.close()
    batch = np.zeros((1, *session.input.shape(masks.CONTRACT)), np.float32)
    return message(lambda: session.infer(batch))


def grows() -> dict[str, int]:
    """What lives after images that grew again and again: graphs of memory that moved are given back."""
    on, null = stand_in(), Null()
    segmenter = door(on, logits=False)
    for side in range(100, 400, 10):
        segmenter.predict(images(4 * BATCH, [(side, side)]))
    return null.counts()


def after_want_of_memory() -> tuple[str, list[bool]]:
    """A batch for which there is no memory, and those after it, whose buffers lie elsewhere."""
    segmenter, given = door(stand_in(), logits=False), images(6, [(128, 192)])
    segmenter.predict(given)
    gpu = open_gpu()
    with gpu.current():
        hog = gpu.device_memory(int(gpu.driver.cuMemGetInfo()[1]) - 2**20)
        said = message(lambda: segmenter.predict(images(2, [(2000, 2000)])))
        del hog
        kept = [gpu.device_memory(size) for size in range(2**14, 2**17, 512) for _ in range(2)]
    right = same(segmenter.predict(given), given)
    del kept
    return said, right


def in_a_fork() -> tuple[list[str], list[bool]]:
    """A segmenter that shares the process's context, used in a fork: what is said, and the driver's calls
    there; then in the process itself."""
    null, segmenter, given = Null(), door(stand_in(), logits=False), images(4, [OWN])
    segmenter.predict(given)
    gpu = open_gpu()
    read, write = os.pipe()
    calls = null.counts()["calls"]
    if not (child := os.fork()):
        said = [message(lambda: segmenter.predict(given)), message(segmenter.close)]
        del gpu
        os.write(write, json.dumps([*said, str(null.counts()["calls"] - calls)]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    found: list[str] = json.loads(os.read(read, 2**16))
    return found, same(segmenter.predict(given), given)


def apart_and_in_a_fork(copy: Path, root: Path) -> list[bool]:
    """A session in a process of its own is used in a fork, too: the fork starts another."""
    segmenter = door(open_apart(bundle_of(copy, root), device_folder=None, **OPTIONS), logits=False)
    given = images(4, SIZES)
    right = same(segmenter.predict(given), given)
    if not (child := os.fork()):
        os._exit(0 if all(same(segmenter.predict(given), given)) else 1)
    _, status = os.waitpid(child, 0)
    right += [status == 0, *same(segmenter.predict(given), given)]
    segmenter.close()
    return right


def refuses_a_capture() -> tuple[list[bool], bool, dict[str, int]]:
    """A library that takes memory whenever it runs, which CUDA refuses in a capture."""
    on, null = stand_in(), Null()
    real = on.enqueue

    def enqueue(count: int, source: int, target: int) -> None:
        taken = on.gpu.device_memory(64)
        real(count, source, target)
        del taken

    on.enqueue = enqueue
    segmenter, given = door(on, logits=False), images(8, [OWN])
    right = same(segmenter.predict(given), given)
    return right, segmenter._keeper._session.has_graph(BATCH), null.counts()


def fails_in_the_middle() -> tuple[str, list[bool]]:
    """A network that fails once, when a part of its batch is queued; those before and after it are right."""
    on = stand_in()
    real, left = on.enqueue, [5]

    def enqueue(count: int, source: int, target: int) -> None:
        left[0] -= 1
        if left[0]:
            real(count, source, target)
        else:
            on.gpu.device_memory(2**60)

    segmenter, given = door(on, logits=False), images(10, SIZES)
    on.enqueue = enqueue
    found: list[Any] = []

    def each() -> None:
        for one in segmenter.predict_each(given):
            found.append(one)

    said = message(each)
    right = same(found, given[: len(found)])
    return said, [*right, len(found) >= BATCH, *same(segmenter.predict(given), given)]


def batches_below_the_smallest(logits: bool | str) -> list[bool]:
    """An engine that takes no batch of one: the last of an odd number, and single ones."""
    on = stand_in(profile=Profile(2, 2, 4))
    segmenter, given = door(on, logits=logits), images(5, SIZES)
    found = [*segmenter.predict(given), *(segmenter.predict(one) for one in given)]
    found += [one.prediction for one in segmenter.stream(given)]
    alone = Segmenter(masks.CONTRACT, on, 1, band=masks.BAND, logits=logits)
    return same([*found, *alone.predict(given)], given * 4)


def side_by_side() -> list[bool]:
    """Two segmenters on one device and one on another, in threads of one process."""
    doors = [door(stand_in(ordinal=ordinal), logits=False) for ordinal in (0, 0, 1)]
    given, found = images(20, SIZES), [[], [], []]

    def work(index: int) -> None:
        for _ in range(3):
            found[index] = doors[index].predict(given)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [right for one in found for right in same(one, given)]


def batches_of_another_process(copy: Path, root: Path, fault: Path) -> tuple[list[str], list[bool]]:
    """A batch that was under way in a process which is gone, asked for when its successor has batches."""
    segmenter = door(open_apart(bundle_of(copy, root), device_folder=None, **OPTIONS), logits=False)
    given, others = images(8, SIZES), images(8, SIZES)[::-1]
    standing = segmenter.predict_each(given)
    first = [next(standing)]
    fault.touch()
    said = [message(lambda: segmenter.predict(given))]
    newer = segmenter.predict_each(others)
    begun = [next(newer)]
    said.append(message(lambda: first.extend(standing)))
    right = same(first, given[: len(first)]) + same([*begun, *newer], others)
    segmenter.close()
    return said, right


class Here:
    """The child's server without a process, behind the `Worker`'s methods."""

    def __init__(self, bundle: Bundle) -> None:
        root, digest = str(bundle.root), bundle.digest()
        self.server = GpuServer({"root": root, "digest": digest, "device_folder": None, **OPTIONS})
        self.facts = json.loads(to_json(self.server.facts()))

    def ask(self, request: bytes) -> bytes:
        return self.server.answer(request)


def abandoned(copy: Path, root: Path) -> tuple[int, list[bool]]:
    """Batches whose masks nobody fetches: how many the child still holds."""
    worker: Any = Here(bundle_of(copy, root))
    segmenter, given = door(GpuProcess(worker), logits=False), images(8, SIZES)
    for _ in range(20):
        next(segmenter.predict_each(given))
    right = same(segmenter.predict(given), given)
    return len(worker.server._tickets), right
