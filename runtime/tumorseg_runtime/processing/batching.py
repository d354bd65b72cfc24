"""From images to the form of input that a session names (`tumorseg_runtime.core.session.InputForm`).

Preprocessing runs on the CPU, or as one kernel per batch on the GPU (`inference.gpu_masks`), which takes the
frames' own pixels. Both give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, InputError
from tumorseg_runtime.core.session import STREAM, InputForm
from tumorseg_runtime.images.frame import Frame
from tumorseg_runtime.images.read import check_image
from tumorseg_runtime.processing.preprocess import Preprocessor, require_channels

PLACES = ("cpu", "cuda")
DTYPES = ("float32", "float16", "uint8")


class Form(Protocol):
    """What is made of a frame alone. Any number of threads may share it."""

    def prepare(self, frame: Frame) -> npt.NDArray[Any]:
        """Raises InputError for a frame that the network does not take."""


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


class PixelForm:
    """Frames' own pixels, for a session that preprocesses on the GPU."""

    def __init__(self, contract: Contract, form: InputForm) -> None:
        self._channels = form.shape(contract)[0]

    def prepare(self, frame: Frame) -> npt.NDArray[Any]:
        """uint8 (H, W) or (H, W, 3), as it is."""
        pixels = check_image(frame.pixels, frame.name)
        require_channels(pixels, self._channels, frame.name)
        return pixels


def place_of(form: InputForm, backend: str, place: str | None) -> str:
    """Where images are preprocessed: `place` itself, or for None the GPU where the session's batches are
    queued on its stream, else the CPU.

    Raises InputError for another place, BackendError where nothing here makes the form, or not there.
    """
    if place not in (None, *PLACES):
        raise InputError(f"preprocessing on '{place}', expected one of {', '.join(PLACES)}")
    if form.dtype not in DTYPES or form.layout != "NCHW":
        raise BackendError(
            f"{backend} takes {form.dtype} {form.layout}, expected NCHW in {', '.join(DTYPES)}, which is "
            "what the preprocessor makes: choose another artefact or backend"
        )
    queued = STREAM in form.memory
    if place == "cuda" and not queued:
        raise BackendError(
            f"{backend} takes {form.dtype} in the memory of {' or '.join(form.memory)}, expected a session "
            "that runs on a GPU's stream: take the backend tensorrt, or preprocess on the CPU"
        )
    return place or ("cuda" if queued else "cpu")
