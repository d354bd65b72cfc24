"""What a backend must offer. Protocols and not base classes: a device maker's own backend fits without
importing anything of ours."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.contract import Contract
from tumorseg_runtime.errors import InputError, OutputError

FloatArray = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class InputForm:
    """The form of input that a session takes: dtype name, axis order, largest batch (None: any)."""

    dtype: str = "float32"
    layout: str = "NCHW"
    max_batch: int | None = None


@dataclasses.dataclass(frozen=True)
class SessionInfo:
    """What a session really runs on, as it reports itself and not as it was asked.

    choice: for backend 'auto', why this one was chosen and each other was not, a line each.
    """

    backend: str
    device: str
    precision: str
    versions: dict[str, str]
    choice: tuple[str, ...] = ()


class Session(Protocol):
    """A network that is ready to run."""

    @property
    def input(self) -> InputForm:
        """The form that `infer` takes."""

    @property
    def info(self) -> SessionInfo:
        """Backend, device, precision and versions."""

    def infer(self, batch: FloatArray) -> FloatArray:
        """float32 (N, C, H, W) preprocessed -> float32 logits (N, K, H, W)."""


def check_batch(batch: FloatArray, contract: Contract) -> None:
    """Raise InputError unless the batch is float32 (N, C, H, W) of the contract's sizes, N at least 1."""
    shape = (contract.channels, contract.height, contract.width)
    if batch.ndim != 4 or batch.shape[1:] != shape or not len(batch) or batch.dtype != np.float32:
        raise InputError(
            f"batch is {batch.dtype} {batch.shape}, expected float32 (N, {', '.join(map(str, shape))}): "
            "make it with tumorseg_runtime.preprocess.Preprocessor"
        )


def checked_infer(session: Session, batch: FloatArray, contract: Contract) -> FloatArray:
    """`session.infer` with both sides checked against the contract.

    Raises InputError for a batch of another shape, dtype or with values that are not finite, and
    OutputError for logits of another shape, dtype or not finite: neither may become a mask.
    """
    check_batch(batch, contract)
    limit = session.input.max_batch
    if limit is not None and len(batch) > limit:
        raise InputError(
            f"batch holds {len(batch)} images, {session.info.backend} takes at most {limit}: split it"
        )
    if not np.isfinite(batch).all():
        raise InputError(
            "batch holds values that are not finite, expected finite numbers: check the contract"
        )
    logits = session.infer(batch)
    expected = (len(batch), len(contract.classes), contract.height, contract.width)
    if not isinstance(logits, np.ndarray) or logits.shape != expected or logits.dtype != np.float32:
        got = f"{logits.dtype} {logits.shape}" if isinstance(logits, np.ndarray) else type(logits).__name__
        raise OutputError(
            f"{session.info.backend} returned {got} as logits, expected float32 {expected}: "
            "the artefact does not fit the contract; export it again"
        )
    if not np.isfinite(logits).all():
        raise OutputError(
            f"{session.info.backend} on {session.info.device} in {session.info.precision} returned "
            f"{np.count_nonzero(~np.isfinite(logits))} logits that are not finite: use the fp32 artefact"
        )
    return logits
