"""A backend without a network, for tests of what stands around one: the logit is the mean channel's value.

It is not in the registry, so no bundle and no flag can choose it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.core.session import InProcess, InputForm, SessionInfo


class FakeSession(InProcess):
    """A `Session` whose logits are the mean over the channels times `gain`, for each of `classes`."""

    def __init__(self, classes: int = 1, gain: float = 1.0, max_batch: int | None = None) -> None:
        self.classes = classes
        self.gain = gain
        self.batches: list[int] = []
        self.input = InputForm(max_batch=max_batch)
        self.info = SessionInfo("fake", "cpu", "fp32", {})

    def infer(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 (N, C, H, W) -> float32 (N, classes, H, W); notes the batch's size in `batches`."""
        self.batches.append(len(batch))
        logits = batch.mean(axis=1, keepdims=True) * np.float32(self.gain)
        return np.repeat(logits, self.classes, axis=1).astype(np.float32)
