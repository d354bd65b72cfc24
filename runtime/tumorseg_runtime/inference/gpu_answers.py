"""What becomes of a network's answer on the GPU before it comes down: logits as they are, decisions at each
image's own size, or the masks of a deploy form; a decision is one bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import OutputError
from tumorseg_runtime.core.session import SessionInfo, said_of_masks
from tumorseg_runtime.device.cuda import Gpu, Pair
from tumorseg_runtime.device.memory import Handle, Memory
from tumorseg_runtime.processing.decide_cuda import FOUND, WORD, Decider, words_of
from tumorseg_runtime.processing.postprocess import close_share, masks_from_logits

HALF, FLOAT = 2, 4  # bytes of a logit
Sizes = Sequence[tuple[int, int]]  # of images: height, width


@dataclasses.dataclass(frozen=True, eq=False)
class Decided:
    """An image that the GPU decided. masks: bool (K, H, W) at its own size. close: share of its decisions
    within the band, 0..1; None without a band. logits: float32 (K, h, w) where FP16 came down."""

    masks: npt.NDArray[np.bool_]
    close: float | None
    logits: npt.NDArray[np.float32] | None = None


Answers = Sequence[Decided] | npt.NDArray[np.float32] | npt.NDArray[np.uint8]


class Place(Protocol):
    """Buffers of one batch. answer: what the network writes. back, halves: what comes down. done: set when
    all of it is there."""

    answer: Memory
    back: Pair
    halves: Pair
    done: Handle


class Answer(Protocol):
    """One way; used under the lock of its `GpuMasks`, with the context current."""

    nbytes: int  # of one image's answer, as the network writes it

    def prepare(self, place: Place) -> None:
        """Take the memory that never grows."""

    def require_right(self, place: Place, up: Pair) -> None:
        """Raise BackendError where the GPU decides otherwise than the CPU; the memory is written."""

    def plan(self, sizes: Sizes) -> tuple[npt.NDArray[np.uint8] | None, int]:
        """Bytes that go up beside the images, and how many bytes of `back` come down."""

    def launch(self, count: int, place: Place, beside: int) -> None:
        """Queue the kernels behind the network. beside: device address of the bytes that went up."""

    def bring(self, place: Place, count: int, nbytes: int, down: Handle) -> None:
        """Queue the copies to the host on a stream."""

    def read(self, place: Place, sizes: Sizes, down: Handle) -> Answers:
        """What came down; raises OutputError for answers of which no mask is made."""


class LogitsDown:
    """FP32 logits, of which the host decides."""

    def __init__(self, contract: Contract, gpu: Gpu, info: SessionInfo) -> None:
        self._gpu, self._info = gpu, info
        self._shape = (len(contract.classes), contract.height, contract.width)
        self.nbytes = int(np.prod(self._shape)) * FLOAT

    def prepare(self, place: Place) -> None:
        """Nothing."""

    def require_right(self, place: Place, up: Pair) -> None:
        """Nothing."""

    def plan(self, sizes: Sizes) -> tuple[None, int]:
        """As `Answer`."""
        return None, len(sizes) * self.nbytes

    def launch(self, count: int, place: Place, beside: int) -> None:
        """Nothing."""

    def bring(self, place: Place, count: int, nbytes: int, down: Handle) -> None:
        """As `Answer`."""
        self._gpu.download(place.back.host.pointer, place.answer.pointer, nbytes, on=down)

    def read(self, place: Place, sizes: Sizes, down: Handle) -> npt.NDArray[np.float32]:
        """float32 (N, K, h, w)."""
        flat = place.back.host.array()[: len(sizes) * self.nbytes].view(np.float32)
        logits = flat.reshape(len(sizes), *self._shape).copy()
        broken = np.flatnonzero(~np.isfinite(logits).all(axis=(1, 2, 3)))
        _require_finite(self._info, broken.tolist())
        return logits


class Decisions:
    """One bit for each pixel and class at the image's own size; with `halves` logits in FP16 besides."""

    def __init__(
        self, contract: Contract, gpu: Gpu, info: SessionInfo, largest: int, band: float | None,
        halves: bool, cache: Path | None,
    ) -> None:  # fmt: skip
        self._contract, self._gpu, self._info = contract, gpu, info
        self._largest, self._band, self._halves = largest, band, halves
        self._shape = (len(contract.classes), contract.height, contract.width)
        self._values = int(np.prod(self._shape))
        self.nbytes = self._values * FLOAT
        self._decider = Decider(contract, gpu, band, cache)
        self._scratch = Pair(gpu)  # for logits of single images

    def prepare(self, place: Place) -> None:
        """As `Answer`."""
        place.halves.require(self._largest * self._values * HALF if self._halves else 0)

    def require_right(self, place: Place, up: Pair) -> None:
        """As `Answer`."""
        self._decider.require_same_masks(up, place.answer, place.back)

    def plan(self, sizes: Sizes) -> tuple[npt.NDArray[np.uint8], int]:
        """As `Answer`."""
        beside, words = self._decider.outlines(sizes)
        return beside, self._largest * FOUND.itemsize + words * WORD

    def launch(self, count: int, place: Place, beside: int) -> None:
        """As `Answer`."""
        self._decider.launch(count, self._largest, place.answer.pointer, beside, place.back)
        if self._halves:
            values, halves = count * self._values, place.halves.device.pointer
            self._decider.launch_halves(values, place.answer.pointer, halves)

    def bring(self, place: Place, count: int, nbytes: int, down: Handle) -> None:
        """As `Answer`."""
        self._gpu.download(place.back.host.pointer, place.back.device.pointer, nbytes, on=down)
        if self._halves:
            pair, nbytes = place.halves, count * self._values * HALF
            self._gpu.download(pair.host.pointer, pair.device.pointer, nbytes, on=down)

    def read(self, place: Place, sizes: Sizes, down: Handle) -> list[Decided]:
        """One for each image."""
        found, masks = self._decider.read(place.back.host.array(), self._largest, sizes)
        _require_finite(self._info, np.flatnonzero(found["broken"]).tolist())
        answers = [
            self._by_host(place, index, size, down)
            if unsure
            else Decided(mask, None if self._band is None else int(close) / mask.size)
            for index, (mask, size, (_, unsure, close)) in enumerate(
                zip(masks, sizes, found.tolist(), strict=True)
            )
        ]
        if not self._halves:
            return answers
        flat = place.halves.host.array()[: len(sizes) * self._values * HALF].view(np.float16)
        logits = flat.reshape(len(sizes), *self._shape).astype(np.float32)
        return [dataclasses.replace(one, logits=own) for one, own in zip(answers, logits, strict=True)]

    def _by_host(self, place: Place, index: int, size: tuple[int, int], down: Handle) -> Decided:
        """Decide one image from its logits, which are still in the set's memory."""
        contract, nbytes = self._contract, self.nbytes
        self._scratch.require(nbytes)
        source = place.answer.pointer + index * nbytes
        self._gpu.download(self._scratch.host.pointer, source, nbytes, on=down)
        self._gpu.record(place.done, on=down)
        self._gpu.await_event(place.done)
        logits = self._scratch.host.array()[:nbytes].view(np.float32).reshape(self._shape)
        close = None if self._band is None else close_share(logits, contract, *size, self._band)
        return Decided(masks_from_logits(logits, contract, *size), close)


class NetworkMasks:
    """The masks that a deploy form gives, at the network's own size, one bit for each pixel and class."""

    def __init__(
        self, contract: Contract, gpu: Gpu, info: SessionInfo, largest: int, cache: Path | None
    ) -> None:
        self._gpu, self._info, self._largest = gpu, info, largest
        self._shape = (len(contract.classes), contract.height, contract.width)
        self._size = self._shape[1:]
        self.nbytes = int(np.prod(self._shape))
        self._decider = Decider(contract, gpu, None, cache)

    def prepare(self, place: Place) -> None:
        """Nothing."""

    def require_right(self, place: Place, up: Pair) -> None:
        """As `Answer`."""
        self._decider.require_same_packing(up, place.answer, place.back)

    def plan(self, sizes: Sizes) -> tuple[None, int]:
        """As `Answer`."""
        words = len(sizes) * words_of(self._shape[0], self._size)
        return None, self._largest * FOUND.itemsize + words * WORD

    def launch(self, count: int, place: Place, beside: int) -> None:
        """As `Answer`."""
        self._decider.launch_packing(count, self._largest, place.answer.pointer, place.back)

    def bring(self, place: Place, count: int, nbytes: int, down: Handle) -> None:
        """As `Answer`."""
        self._gpu.download(place.back.host.pointer, place.back.device.pointer, nbytes, on=down)

    def read(self, place: Place, sizes: Sizes, down: Handle) -> npt.NDArray[np.uint8]:
        """uint8 (N, K, h, w) of 0 and 1."""
        own = [self._size] * len(sizes)
        found, masks = self._decider.read(place.back.host.array(), self._largest, own)
        undecided, others = int(found["broken"].sum()), int(found["unsure"].sum())
        if undecided or others:
            raise _wrong(self._info, said_of_masks(undecided, others))
        return np.stack(masks).view(np.uint8)


def _require_finite(info: SessionInfo, broken: list[int]) -> None:
    if broken:
        raise _wrong(info, f"logits that are not finite for images {broken} of a batch")


def _wrong(info: SessionInfo, what: str) -> OutputError:
    return OutputError(
        f"{info.backend} on {info.device} in {info.precision} returned {what}: use the fp32 artefact"
    )
