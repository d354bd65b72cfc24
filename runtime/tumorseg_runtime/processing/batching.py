"""From images to the form of input that a session names (`tumorseg_runtime.core.session.InputForm`).

Preprocessing runs on the CPU, or as one kernel per batch on the GPU, whose tensor a session then reads where
it lies. Both give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.backend import split_device
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.core.session import DEVICE, InputForm
from tumorseg_runtime.images.frame import Frame
from tumorseg_runtime.images.read import check_image
from tumorseg_runtime.processing.preprocess import Preprocessor, require_channels

if TYPE_CHECKING:
    from tumorseg_runtime.device.cuda import DeviceTensor
    from tumorseg_runtime.processing.preprocess_cuda import CudaPreprocessor

PLACES = ("cpu", "cuda")
DTYPES = ("float32", "float16", "uint8")


class Form(Protocol):
    """Makes batches. Any number of threads may share it."""

    def prepare(self, frame: Frame) -> npt.NDArray[Any]:
        """What is done for a frame alone; raises InputError for one that the network does not take."""

    def gather(self, prepared: Sequence[npt.NDArray[Any]]) -> Any:
        """What was prepared, as one batch (N, C, h, w) for the session."""

    def release(self, batch: Any) -> None:
        """The batch was inferred and nobody reads it any more."""


class HostForm:
    """Batches in the host's memory: float32, float16 (rounded once, half to even), or resized pixels."""

    def __init__(self, contract: Contract, form: InputForm) -> None:
        self._preprocess = Preprocessor(contract)
        self._dtype = np.dtype(form.dtype)
        self._channels = form.shape(contract)[0]

    def prepare(self, frame: Frame) -> npt.NDArray[Any]:
        """(C, h, w) in the session's dtype."""
        if self._dtype == np.uint8:
            return self._preprocess.planes(frame.pixels, self._channels, frame.name)
        return self._preprocess(frame.pixels, frame.name).astype(self._dtype, copy=False)

    def gather(self, prepared: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """(N, C, h, w); a single image is not copied."""
        return prepared[0][None] if len(prepared) == 1 else np.stack(prepared)

    def release(self, batch: Any) -> None:
        """Nothing to do: the memory goes with the array."""


class DeviceForm:
    """Batches in the GPU's memory. A tensor that was inferred is used again for a later batch."""

    def __init__(self, preprocess: CudaPreprocessor) -> None:
        self._preprocess = preprocess
        self._idle: list[DeviceTensor] = []

    def prepare(self, frame: Frame) -> npt.NDArray[Any]:
        """The frame's own pixels: the GPU resizes them."""
        pixels = check_image(frame.pixels, frame.name)
        require_channels(pixels, self._preprocess.contract.channels, frame.name)
        return pixels

    def gather(self, prepared: Sequence[npt.NDArray[Any]]) -> DeviceTensor:
        """(N, C, h, w) in device memory, complete."""
        try:
            idle = self._idle.pop()
        except IndexError:  # another thread has it, or there was none yet
            return self._preprocess(prepared)
        fits = idle.memory.nbytes >= len(prepared) * int(np.prod(idle.shape[1:])) * idle.dtype.itemsize
        return self._preprocess(prepared, out=idle if fits else None)

    def release(self, batch: DeviceTensor) -> None:
        """Keep its memory for a later batch."""
        self._idle.append(batch)


def open_form(
    contract: Contract,
    form: InputForm,
    backend: str,
    place: str = "cpu",
    cache: Path | None = None,
    device: str = "cuda",
) -> Form:
    """What makes the form that the session of `backend` names.

    place: where images are preprocessed, 'cpu' or 'cuda'. cache: folder for the GPU's compiled kernel.
    device: of the session, 'cuda:1' for its second GPU.
    Raises InputError for another place, BackendError where nothing here makes the form, where the session
    does not read device memory, or where there is no GPU.
    """
    if place not in PLACES:
        raise InputError(f"preprocessing on '{place}', expected one of {', '.join(PLACES)}")
    if form.dtype not in DTYPES or form.layout != "NCHW":
        raise BackendError(
            f"{backend} takes {form.dtype} {form.layout}, expected NCHW in {', '.join(DTYPES)}, which is "
            "what the preprocessor makes: choose another artefact or backend"
        )
    if place == "cpu":
        return HostForm(contract, form)
    if DEVICE not in form.memory or form.dtype == "uint8":
        raise BackendError(
            f"{backend} takes {form.dtype} in the memory of {' or '.join(form.memory)}, expected a session "
            "that reads tensors in device memory: take the backend tensorrt, or preprocess on the CPU"
        )
    from tumorseg_runtime.processing.preprocess_cuda import open_preprocessor

    return DeviceForm(
        open_preprocessor(contract, dtype=form.dtype, cache=cache, ordinal=split_device(device)[1])
    )
