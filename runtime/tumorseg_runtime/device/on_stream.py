"""What a session must offer besides, so that it can be queued on a GPU's stream between work of others."""

from __future__ import annotations

from typing import Protocol

from tumorseg_runtime.core.session import Session
from tumorseg_runtime.device.cuda import Gpu


class OnStream(Session, Protocol):
    """A session whose `input.memory` has STREAM."""

    @property
    def gpu(self) -> Gpu:
        """The GPU and its stream."""

    @property
    def smallest(self) -> int:
        """Batch that the network takes at least."""

    def enqueue(self, count: int, source: int, target: int) -> None:
        """Queue `count` images at device address `source`, in the form of `input`, whose answers go to
        `target`, on the stream of `gpu`; waits for nothing. The context is current. Raises BackendError.

        Queued again right afterwards, the same may be captured in a CUDA graph."""

    def served(self, count: int) -> None:
        """A batch of `count` was waited for: keep what was compiled for it."""
