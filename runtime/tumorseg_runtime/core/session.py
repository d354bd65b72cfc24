"""What a backend must offer. Protocols and not base classes: a device maker's own backend fits without
importing anything of ours."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, InputError, OutputError, TumorsegError

FloatArray = npt.NDArray[np.float32]
LOGITS, MASKS = "logits", "masks"  # what a session gives
HALVES = "float16"  # logits that a GPU rounds before they come down
NO_DECISION = 255  # in a mask, where the network's answer was not finite
HOST, DEVICE = "host", "device"
STREAM = "stream"  # the session is a `device.on_stream.OnStream`


@dataclasses.dataclass(frozen=True)
class InputForm:
    """The form of input that a session takes.

    dtype: 'float32' or 'float16' for preprocessed tensors, 'uint8' for pixels that were resized and no more.
    layout: axis order. max_batch: largest batch, None for any.
    channels: where it is not the contract's: 1 for a form that takes gray images only.
    memory: where a batch may lie, 'host', or 'device' for a `__cuda_array_interface__`; 'stream' of a session
        that is a `tumorseg_runtime.device.on_stream.OnStream`, too.
    """

    dtype: str = "float32"
    layout: str = "NCHW"
    max_batch: int | None = None
    channels: int | None = None
    memory: tuple[str, ...] = (HOST,)

    def shape(self, contract: Contract) -> tuple[int, int, int]:
        """Of one image: channels, height, width."""
        return (self.channels or contract.channels, contract.height, contract.width)


@dataclasses.dataclass(frozen=True)
class SessionInfo:
    """What a session really runs on, as it reports itself and not as it was asked.

    versions: of the packages, and what else must not change under a measurement (GPU, TF32).
    choice: for backend 'auto', why this one was chosen and each other was not, a line each.
    """

    backend: str
    device: str
    precision: str
    versions: dict[str, str]
    choice: tuple[str, ...] = ()


class Session(Protocol):
    """A network that is ready to run. A class of your own needs these members and nothing of ours; where all
    happens in this process, `InProcess` has the last four as they should be."""

    @property
    def input(self) -> InputForm:
        """The form that `infer` takes."""

    @property
    def info(self) -> SessionInfo:
        """Backend, device, precision and versions."""

    def infer(self, batch: Any) -> npt.NDArray[Any]:
        """(N, C, H, W) in the form of `input` -> float32 logits (N, K, H, W), or uint8 masks of 0 and 1."""

    @property
    def output(self) -> str:
        """What `infer` gives: LOGITS or MASKS."""

    @property
    def restarts(self) -> bool:
        """True where the network runs in a process of its own, which `interrupt` ends and the next `infer`
        starts again. Any other session is replaced when it failed or passed its deadline."""

    def interrupt(self) -> None:
        """End the `infer` that runs now, from another thread: it raises BackendError. Called only where
        `restarts` is True."""

    def close(self) -> None:
        """Give back what the session holds; it is not used again. Called when it has been replaced."""


class InProcess:
    """The members of a `Session` that runs in this process, gives logits and holds nothing but memory."""

    output = LOGITS
    restarts = False

    def interrupt(self) -> None:
        """Nothing can end a call inside of a native library."""

    def close(self) -> None:
        """The memory goes with the session."""


def check_batch(batch: Any, contract: Contract, form: InputForm = InputForm()) -> None:
    """Raise InputError unless the batch is (N, C, H, W) of the form and contract, N at least 1."""
    shape = form.shape(contract)
    fits = len(batch.shape) == 4 and batch.shape[1:] == shape and batch.shape[0] and batch.dtype == form.dtype
    if not fits:
        raise InputError(
            f"batch is {batch.dtype} {batch.shape}, expected {form.dtype} (N, {', '.join(map(str, shape))}): "
            "make it with tumorseg_runtime.processing.batching.HostForm"
        )


def checked_infer(session: Session, batch: Any, contract: Contract) -> npt.NDArray[Any]:
    """`session.infer` with both sides checked against the contract: float32 logits, or uint8 masks.

    batch: a numpy array or, where the session takes it, a `tumorseg_runtime.device.tensor.DeviceTensor`; what
        is in device memory comes from a table whose values are finite.
    Raises InputError for a batch of another shape, dtype or with values that are not finite, BackendError for
    whatever the session raises that is no error of ours, and OutputError for logits or masks of another
    shape, dtype or not finite: none of them may become a mask.
    """
    check_batch(batch, contract, session.input)
    limit = session.input.max_batch
    if limit is not None and batch.shape[0] > limit:
        raise InputError(
            f"batch holds {batch.shape[0]} images, {session.info.backend} takes at most {limit}: split it"
        )
    if isinstance(batch, np.ndarray) and batch.dtype.kind == "f" and not np.isfinite(batch).all():
        raise InputError(
            "batch holds values that are not finite, expected finite numbers: check the contract"
        )
    try:
        answer = session.infer(batch)
    except TumorsegError:
        raise
    except Exception as error:  # a backend of a device maker, or a library, may raise anything
        raise BackendError(
            f"{session.info.backend} on {session.info.device} failed with {type(error).__name__} "
            f"({' '.join(str(error).split())[:200]}): try again, or check the device"
        ) from error
    output = session.output
    dtype = np.dtype(np.uint8 if output == MASKS else np.float32)
    expected = (batch.shape[0], len(contract.classes), contract.height, contract.width)
    if not isinstance(answer, np.ndarray) or answer.shape != expected or answer.dtype != dtype:
        got = f"{answer.dtype} {answer.shape}" if isinstance(answer, np.ndarray) else type(answer).__name__
        raise OutputError(
            f"{session.info.backend} returned {got} as {output}, expected {dtype} {expected}: "
            "the artefact does not fit the contract; export it again"
        )
    broken = _broken_masks(answer) if output == MASKS else _broken_logits(answer)
    if broken:
        raise OutputError(
            f"{session.info.backend} on {session.info.device} in {session.info.precision} returned {broken}: "
            "use the fp32 artefact"
        )
    return answer


def _broken_logits(logits: npt.NDArray[Any]) -> str:
    if np.isfinite(logits).all():
        return ""
    return f"{np.count_nonzero(~np.isfinite(logits))} logits that are not finite"


def _broken_masks(masks: npt.NDArray[Any]) -> str:
    if masks.max() <= 1:
        return ""
    undecided = int(np.count_nonzero(masks == NO_DECISION))
    return said_of_masks(undecided, int(np.count_nonzero(masks > 1)) - undecided)


def said_of_masks(undecided: int, others: int) -> str:
    """What is wrong with masks that hold so many pixels of NO_DECISION, and of other values than 0 and 1."""
    return f"{undecided} pixels without a decision and {others} that are neither 0 nor 1"
