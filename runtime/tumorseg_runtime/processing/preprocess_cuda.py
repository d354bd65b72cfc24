"""Preprocessing on the GPU: the bits of `tumorseg_runtime.processing.preprocess`, left in device memory.

One kernel (`kernels/preprocess.cu`) takes a batch of images of different sizes, gray and RGB mixed, to one
NCHW tensor. Taps come from the same function as on the CPU and the normalised values from the same table, so
the kernel has integers only. For float16 the table is rounded once, half to even: the bits of
`Preprocessor(image).astype(np.float16)`. For uint8, which a deploy form takes, it is the value itself. An
instance proves itself on golden images before it is handed out.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.device.cuda import Gpu, Pair, open_gpu
from tumorseg_runtime.device.memory import Memory
from tumorseg_runtime.device.tensor import DeviceTensor, interface_of
from tumorseg_runtime.images.read import check_image
from tumorseg_runtime.processing.kernels import cubin_of
from tumorseg_runtime.processing.preprocess import Preprocessor, golden_images, taps

# What the kernel's structures of the same names hold.
TAP = np.dtype([("first", "<i4"), ("second", "<i4"), ("weight", "<i4")])
IMAGE = np.dtype(
    [
        ("pixels", "<u8"),
        ("pitch", "<i8"),
        ("channels", "<i4"),
        ("columns", "<i4"),
        ("rows", "<i4"),
        ("reserved", "<i4"),
    ]
)
DTYPES = ("float32", "float16", "uint8")
BLOCK = (32, 8, 1)  # threads: columns, rows, images
ALIGNMENT = 16  # bytes, of each image in the staging memory
REMEMBERED_SIZES = 64


@dataclasses.dataclass(frozen=True, eq=False)
class SourceImage:
    """Where one image lies: host pixels, or a device address with the bytes from row to row."""

    shape: tuple[int, ...]
    pixels: npt.NDArray[np.uint8] | None
    address: int
    pitch: int

    @property
    def nbytes(self) -> int:
        """Bytes that must be brought to the GPU."""
        return 0 if self.pixels is None else self.pixels.size


class CudaPreprocessor:
    """Turns images into a tensor on the GPU. Any thread may call it; the calls go one after the other.

    Its staging memory grows to the largest batch that it has seen, and is kept.
    """

    def __init__(
        self, contract: Contract, gpu: Gpu, dtype: str = "float32", cache: Path | None = None,
        channels: int | None = None,
    ) -> None:  # fmt: skip
        """channels: planes that are made, where they are not the contract's: of uint8 alone."""
        if dtype not in DTYPES:
            raise InputError(f"dtype is '{dtype}', expected one of {', '.join(DTYPES)}")
        self.contract, self.channels = contract, channels or contract.channels
        self.gpu = gpu
        self.dtype = np.dtype(dtype)
        self._lock, self._on_cpu = threading.Lock(), Preprocessor(contract)
        cubin = cubin_of(gpu.capability, cache)
        values = self._on_cpu.table if dtype != "uint8" else np.tile(np.arange(256), (self.channels, 1))
        table = np.ascontiguousarray(values.astype(self.dtype))  # (C, 256)
        with gpu.current():
            self._function = gpu.function(cubin, f"preprocess_{dtype}")
            self._table = gpu.device_memory(table.nbytes)
            gpu.upload(self._table.pointer, table.ctypes.data, table.nbytes)
            gpu.synchronise()
        self._staging = Pair(gpu)

    def __call__(
        self, images: Sequence[Any], names: Sequence[str] | None = None, out: DeviceTensor | None = None
    ) -> DeviceTensor:
        """uint8 images -> (N, C, height, width) on the GPU, complete when this returns.

        images: (H, W) gray or (H, W, 3) RGB each, of any sizes: numpy arrays, or arrays in device memory with
            `__cuda_array_interface__` and any pitch, which are read where they lie.
        names: for messages. out: a tensor that is no longer needed, whose memory is taken again.
        Raises InputError for another shape or dtype, for colour where the contract has one channel, for no
        image, and for an `out` that is too small; BackendError where the GPU fails.
        """
        if not len(images):
            raise InputError("got no images, expected one or more")
        names = [f"image {index}" for index in range(len(images))] if names is None else names
        contract = self.contract
        shape = (len(images), self.channels, contract.height, contract.width)
        with self._lock, self.gpu.current():
            target = self._target(shape, out)
            nbytes = self.stage(images, names, self._staging)
            self.gpu.upload(self._staging.device.pointer, self._staging.host.pointer, nbytes)
            self.launch(len(images), self._staging, target.memory)
            self.gpu.synchronise()
        return target

    def on_cpu(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """The bits that it must give for an image: (C, height, width)."""
        if self.dtype == np.uint8:
            return self._on_cpu.planes(image, self.channels)
        return self._on_cpu(image).astype(self.dtype)

    def stage(
        self,
        images: Sequence[Any],
        names: Sequence[str],
        staging: Pair,
        beside: npt.NDArray[np.uint8] | None = None,
    ) -> int:
        """Write descriptions, taps and host pixels into the host's side of `staging`, which grows to fit;
        returns the bytes to upload. The context is current. Raises InputError as a call does.

        beside: bytes of the caller, uploaded to `beside_at(len(images))` in the staging.
        """
        sources = [self._describe(image, name) for image, name in zip(images, names, strict=True)]
        return self._fill(sources, staging, np.empty(0, np.uint8) if beside is None else beside)

    def beside_at(self, count: int) -> int:
        """Where the caller's bytes begin in the staging of `count` images."""
        per_image = self.contract.width + self.contract.height  # taps
        return _aligned(count * (IMAGE.itemsize + per_image * TAP.itemsize))

    def launch(self, count: int, staging: Pair, target: Memory) -> None:
        """Queue the kernel for `count` images whose staging is, or will be, on the GPU; waits for nothing."""
        contract, first = self.contract, staging.device.pointer
        tap_start = first + count * IMAGE.itemsize
        self.gpu.launch(
            self._function,
            (-(-contract.width // BLOCK[0]), -(-contract.height // BLOCK[1]), count),
            BLOCK,
            addresses=(first, tap_start, self._table.pointer, target.pointer),
            numbers=(self.channels, contract.height, contract.width),
        )

    def _target(self, shape: tuple[int, ...], out: DeviceTensor | None) -> DeviceTensor:
        nbytes = int(np.prod(shape)) * self.dtype.itemsize
        if out is None:
            return DeviceTensor(self.gpu, self.gpu.device_memory(nbytes), shape, self.dtype)
        if out.memory.nbytes < nbytes:
            raise InputError(
                f"out has {out.memory.nbytes} bytes, expected at least {nbytes} for {self.dtype} {shape}: "
                "make it with a larger batch, or leave it out"
            )
        return DeviceTensor(self.gpu, out.memory, shape, self.dtype)

    def _describe(self, image: Any, name: str) -> SourceImage:
        if isinstance(image, np.ndarray):
            pixels = check_image(image, name)
            source = SourceImage(pixels.shape, pixels, 0, int(np.prod(pixels.shape[1:])))
        else:
            source = self._on_device(image, name)
        if len(source.shape) == 3 and self.channels == 1:
            raise InputError(
                f"{name}: is a colour image, the network takes gray: convert it by a rule you choose"
            )
        return source

    def _on_device(self, image: Any, name: str) -> SourceImage:
        interface = interface_of(image, name)
        shape = tuple(interface["shape"])
        fits = len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)
        packed = (3, 1) if len(shape) == 3 else (1,)
        strides = interface.get("strides") or (int(np.prod(shape[1:])), *packed)
        if not fits or 0 in shape or interface["typestr"] != "|u1" or tuple(strides[1:]) != packed:
            raise InputError(
                f"{name}: is {interface['typestr']} {shape} with strides {tuple(strides)} in device memory, "
                "expected uint8 (|u1) (H, W) or (H, W, 3) whose rows are packed: make it contiguous"
            )
        return SourceImage(shape, None, self.gpu.wait_for(interface, name), int(strides[0]))

    def _fill(self, sources: Sequence[SourceImage], place_for: Pair, beside: npt.NDArray[np.uint8]) -> int:
        contract = self.contract
        per_image = contract.width + contract.height  # taps
        tap_start = len(sources) * IMAGE.itemsize
        tap_end = tap_start + len(sources) * per_image * TAP.itemsize
        beside_at = self.beside_at(len(sources))
        places = [_aligned(beside_at + beside.nbytes)]
        for source in sources:
            places.append(_aligned(places[-1] + source.nbytes))
        place_for.require(places[-1])
        device, staging = place_for.device, place_for.host.array()
        records = staging[:tap_start].view(IMAGE)
        tables = staging[tap_start:tap_end].view(TAP)
        staging[beside_at : beside_at + beside.nbytes] = beside
        for index, (source, place) in enumerate(zip(sources, places[:-1], strict=True)):
            height, width, *colour = source.shape
            columns = index * per_image
            rows = columns + contract.width
            tables[columns:rows] = tap_table(width, contract.width)
            tables[rows : rows + contract.height] = tap_table(height, contract.height)
            address = source.address
            if source.pixels is not None:
                staging[place : place + source.nbytes].reshape(source.shape)[...] = source.pixels
                address = device.pointer + place
            records[index] = (address, source.pitch, 3 if colour else 1, columns, rows, 0)
        return places[-1]


@functools.lru_cache(maxsize=REMEMBERED_SIZES)
def tap_table(n_in: int, n_out: int) -> npt.NDArray[Any]:
    """`preprocess.taps` of one axis as the kernel reads it: TAP (n_out,), read-only."""
    table = np.empty(n_out, TAP)
    table["first"], table["second"], table["weight"] = taps(n_in, n_out)
    table.flags.writeable = False
    return table


def open_preprocessor(
    contract: Contract, *, dtype: str = "float32", cache: Path | None = None, ordinal: int = 0
) -> CudaPreprocessor:
    """A preprocessor on this machine's GPU that has given the CPU's bits on golden images.

    dtype: of DTYPES. cache: folder for the compiled kernel; None compiles anew (half a second).
    ordinal: of the GPU.
    Raises BackendError where driver, GPU or packages are missing, or where a bit differs.
    """
    preprocess = CudaPreprocessor(contract, open_gpu(ordinal), dtype, cache)
    require_same_bits(preprocess)
    return preprocess


def require_same_bits(preprocess: CudaPreprocessor) -> None:
    """Raise BackendError where the GPU gives other bits than the CPU on golden images."""
    images = [image for image in golden_images() if image.ndim == 2 or preprocess.channels == 3]
    expected = np.stack([preprocess.on_cpu(image) for image in images])
    got = preprocess(images).numpy()
    unsigned = f"u{preprocess.dtype.itemsize}"
    if differ := int(np.count_nonzero(got.view(unsigned) != expected.view(unsigned))):
        raise BackendError(
            f"preprocessing on {preprocess.gpu.name} (sm_{preprocess.gpu.capability}) gives {differ} of "
            f"{got.size} values other than the CPU, expected the same bits: preprocess on the CPU"
        )


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
