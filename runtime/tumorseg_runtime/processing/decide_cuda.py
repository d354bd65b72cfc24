"""Decision on the GPU, at each image's own size: the bits of `tumorseg_runtime.processing.postprocess`.

`kernels/decide.cu` resizes logits by the weights that OpenCV uses on this machine, which are read off OpenCV
itself: they differ between its versions and builds. What then remains is the rounding of seven operations
whose order OpenCV does not fix; where a decision hangs on it, the kernel says so.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import SOFTMAX, Contract
from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.device.cuda import Gpu, Pair
from tumorseg_runtime.device.memory import Memory
from tumorseg_runtime.processing.kernels import DECIDE, cubin_of
from tumorseg_runtime.processing.postprocess import close_share, masks_from_logits

# What the kernel's structures of the same names hold.
BLEND = np.dtype([("first", "<i4"), ("second", "<i4"), ("near", "<f4"), ("far", "<f4")])
OUTLINE = np.dtype(
    [
        ("height", "<i4"),
        ("width", "<i4"),
        ("columns", "<i4"),
        ("rows", "<i4"),
        ("word", "<u8"),
        ("rounding", "<f4"),
        ("reserved", "<i4"),
    ]
)
FOUND = np.dtype([("broken", "<u4"), ("unsure", "<u4"), ("close", "<u4")])
MOST_DECISIONS = 2**31 - 64  # of an image: the kernel counts them by signed integers
WORD = 4  # bytes; a word holds 32 decisions
# Each way of computing a resized logit, with its weights given, errs by at most about 4 roundings (2**-24) of
# the largest sample; two ways differ by at most 8. Twice that.
ROUNDING = 2.0**-20
REMEMBERED_SIZES = 128
RESIDUES = 3  # neighbours differ by their index modulo 3
SAMPLES_ACROSS = 4
BLOCKS, THREADS = 128, 128  # of an image, whatever its size: a CUDA graph keeps them
NO_BAND = -1.0
UNSURE_SHARE = 1e-3  # of the decisions of made-up logits, at most


def words_of(classes: int, size: tuple[int, int]) -> int:
    """Words that hold the decisions of an image of (H, W)."""
    return -(-classes * size[0] * size[1] // 32)


def outlines(
    sizes: Sequence[tuple[int, int]], classes: int, height: int, width: int
) -> tuple[npt.NDArray[np.uint8], int]:
    """What the kernel reads of images of (H, W), for a network of (height, width): OUTLINE records, then
    BLEND records, as bytes; and the words that all their decisions fill."""
    records = np.zeros(len(sizes), OUTLINE)
    blends, start, word = [], 0, 0
    for index, (own_height, own_width) in enumerate(sizes):
        same = (own_height, own_width) == (height, width)
        rounding = 0.0 if same else ROUNDING
        records[index] = (own_height, own_width, start, start + own_width, word, rounding, 0)
        blends += [blend_table(width, own_width, False), blend_table(height, own_height, True)]
        start += own_width + own_height
        word += words_of(classes, (own_height, own_width))
        if classes * own_height * own_width >= MOST_DECISIONS:
            raise InputError(
                f"image {index} has {own_height}x{own_width} pixels in {classes} classes, expected at most "
                f"{MOST_DECISIONS} decisions: resize it, or take logits=True"
            )
    return np.concatenate([one.view(np.uint8) for one in (records, *blends)]), word


@functools.lru_cache(maxsize=REMEMBERED_SIZES)
def blend_table(n_in: int, n_out: int, vertical: bool) -> npt.NDArray[np.void]:
    """How OpenCV resizes one axis of floats, bilinearly: BLEND (n_out,), read-only.

    Samples of one residue are 1 and the others 0, so that the result is the weight of the sample that has
    this residue.
    """
    index = np.arange(n_in)
    weights = np.empty((RESIDUES, n_out), np.float32)
    for residue in range(RESIDUES):
        line = (index % RESIDUES == residue).astype(np.float32)
        image = np.repeat(line[:, None] if vertical else line[None], SAMPLES_ACROSS, axis=int(vertical))
        size = (SAMPLES_ACROSS, n_out) if vertical else (n_out, SAMPLES_ACROSS)
        resized = line if n_in == n_out else cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        weights[residue] = resized if resized.ndim == 1 else resized[:, 0] if vertical else resized[0]
    nearest = np.clip(np.rint((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5).astype(np.int64), 0, n_in - 1)
    sides = nearest + np.array([[-1], [0], [1]])  # (3, n_out)
    inside = (sides >= 0) & (sides < n_in)
    found = np.where(inside, np.take_along_axis(weights, sides % RESIDUES, axis=0), np.float32(0))
    table = np.empty(n_out, BLEND)
    # the pair with the larger sum; a sample that stands alone is the second: OpenCV may come from the first
    left = found[0] + found[1] >= found[1] + found[2]
    left |= ~inside[2]
    left &= inside[0]
    table["first"] = np.where(left, nearest - 1, nearest)
    table["second"] = np.where(left, nearest, np.minimum(nearest + 1, n_in - 1))
    table["near"] = np.where(left, found[0], found[1])
    table["far"] = np.where(left, found[1], np.where(inside[2], found[2], np.float32(0)))
    table.flags.writeable = False
    return table


class Decider:
    """The kernel for one contract and band. `back` is, on both sides: FOUND of the largest batch, then the
    words of each image."""

    def __init__(self, contract: Contract, gpu: Gpu, band: float | None, cache: Path | None = None) -> None:
        """band: in logits; None counts no close pixels. The context is current. Raises BackendError."""
        self._contract, self._gpu, self._band = contract, gpu, band
        cubin = cubin_of(gpu.capability, cache, DECIDE)
        names = ("decide", "to_half", "pack")
        self._function, self._to_half, self._pack = (gpu.function(cubin, name) for name in names)

    def outlines(self, sizes: Sequence[tuple[int, int]]) -> tuple[npt.NDArray[np.uint8], int]:
        """`outlines` of images for this network."""
        contract = self._contract
        return outlines(sizes, len(contract.classes), contract.height, contract.width)

    def launch(self, count: int, largest: int, logits: int, outlines_at: int, back: Pair) -> None:
        """Queue the decision of `count` images, whose outlines lie at a device address; waits for nothing."""
        contract, found = self._contract, back.device.pointer
        self._gpu.clear(found, count * FOUND.itemsize)
        threshold, band = (
            int(np.float32(value).view(np.int32))
            for value in (contract.logit_threshold, NO_BAND if self._band is None else self._band)
        )
        self._gpu.launch(
            self._function,
            (BLOCKS, count, 1),
            (THREADS, 1, 1),
            addresses=(
                logits, outlines_at, outlines_at + count * OUTLINE.itemsize, found,
                found + largest * FOUND.itemsize,
            ),
            numbers=(
                len(contract.classes), contract.height, contract.width, threshold, band,
                int(contract.rule == SOFTMAX),
            ),
        )  # fmt: skip

    def launch_halves(self, values: int, logits: int, halves: int) -> None:
        """Queue the rounding of so many logits to float16; what is larger becomes the largest of them."""
        grid = (BLOCKS, 1, 1)
        self._gpu.launch(self._to_half, grid, (THREADS, 1, 1), addresses=(logits, halves), numbers=(values,))

    def launch_packing(self, count: int, largest: int, masks: int, back: Pair) -> None:
        """Queue the packing of `count` images' masks, uint8 (K, h, w) each, into `back`."""
        contract, found = self._contract, back.device.pointer
        self._gpu.clear(found, count * FOUND.itemsize)
        self._gpu.launch(
            self._pack, (BLOCKS, count, 1), (THREADS, 1, 1),
            addresses=(masks, found, found + largest * FOUND.itemsize),
            numbers=(len(contract.classes) * contract.height * contract.width,),
        )  # fmt: skip

    def read(
        self, back: npt.NDArray[np.uint8], largest: int, sizes: Sequence[tuple[int, int]]
    ) -> tuple[npt.NDArray[np.void], list[npt.NDArray[np.bool_]]]:
        """What came down of images of (H, W): FOUND (N,), and bool masks (K, H, W) of each."""
        classes, masks, start = len(self._contract.classes), [], largest * FOUND.itemsize
        for height, width in sizes:
            end = start + words_of(classes, (height, width)) * WORD
            bits = np.unpackbits(back[start:end], count=classes * height * width, bitorder="little")
            masks.append(bits.view(np.bool_).reshape(classes, height, width))
            start = end
        return back[: len(sizes) * FOUND.itemsize].view(FOUND), masks

    def decide(
        self, made: npt.NDArray[np.float32], size: tuple[int, int], up: Pair, logits: Memory, back: Pair
    ) -> tuple[npt.NDArray[np.bool_], tuple[int, int, int]]:
        """Logits (K, h, w) of the CPU, decided for an image of (H, W): bool (K, H, W), and its FOUND."""
        beside, words = self.outlines([size])
        nbytes = FOUND.itemsize + words * WORD
        up.require(beside.nbytes + made.nbytes)
        back.require(nbytes)
        up.host.array()[: made.nbytes] = made.view(np.uint8).ravel()
        up.host.array()[made.nbytes : made.nbytes + beside.nbytes] = beside
        self._gpu.upload(logits.pointer, up.host.pointer, made.nbytes)
        self._gpu.upload(up.device.pointer, up.host.pointer + made.nbytes, beside.nbytes)
        self.launch(1, 1, logits.pointer, up.device.pointer, back)
        self._gpu.download(back.host.pointer, back.device.pointer, nbytes)
        self._gpu.synchronise()
        found, (masks,) = self.read(back.host.array(), 1, [size])
        return masks, found.tolist()[0]

    def require_same_masks(self, up: Pair, logits: Memory, back: Pair) -> None:
        """Raise BackendError where the GPU decides made-up logits otherwise than the CPU. The memory is
        written; `logits` holds those of an image."""
        contract = self._contract
        height, width = contract.height, contract.width
        random = np.random.default_rng(0)
        made = random.standard_normal((len(contract.classes), height, width)).astype(np.float32)
        made += np.float32(contract.logit_threshold)
        for size in ((height, width), (height * 3 // 2 + 1, width + 7), (height // 2 + 1, width // 3 + 1)):
            masks, (broken, unsure, close) = self.decide(made, size, up, logits, back)
            wrong = int(np.count_nonzero(masks != masks_from_logits(made, contract, *size)))
            if self._band is not None:
                on_cpu = round(close_share(made, contract, *size, self._band) * masks.size)
                wrong = max(wrong, abs(on_cpu - close))
            if broken or wrong > unsure or unsure > UNSURE_SHARE * masks.size + 2:
                raise BackendError(
                    f"{self._gpu.name} (sm_{self._gpu.capability}) decides {wrong} pixels of {height}x"
                    f"{width} logits at {size[0]}x{size[1]} otherwise than the CPU ({unsure} unsure, broken "
                    f"{broken}), "
                    "expected none: bring the logits down (logits=True)"
                )

    def require_same_packing(self, up: Pair, masks: Memory, back: Pair) -> None:
        """Raise BackendError where the GPU packs made-up masks otherwise than they are. The memory is
        written; `masks` holds those of an image."""
        contract = self._contract
        size = (contract.height, contract.width)
        made = np.random.default_rng(0).integers(0, 2, (len(contract.classes), *size), np.uint8)
        nbytes = FOUND.itemsize + words_of(len(contract.classes), size) * WORD
        up.require(made.nbytes)
        back.require(nbytes)
        up.host.array()[: made.nbytes] = made.ravel()
        self._gpu.upload(masks.pointer, up.host.pointer, made.nbytes)
        self.launch_packing(1, 1, masks.pointer, back)
        self._gpu.download(back.host.pointer, back.device.pointer, nbytes)
        self._gpu.synchronise()
        found, (got,) = self.read(back.host.array(), 1, [size])
        if found["broken"].any() or found["unsure"].any() or not np.array_equal(got, made.astype(bool)):
            raise BackendError(
                f"{self._gpu.name} (sm_{self._gpu.capability}) packs masks of {size[0]}x{size[1]} otherwise "
                "than they are, expected each bit as it was: preprocess on the CPU"
            )
