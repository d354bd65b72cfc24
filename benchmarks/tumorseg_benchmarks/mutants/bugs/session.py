"""Bugs of a session: right for single images, and wrong where images share a call or a buffer."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.mutants.mutant import Apply, Device, Mutant, patched
from tumorseg_benchmarks.mutants.testbed import BedNetwork
from tumorseg_runtime.backends.onnxruntime_sessions import OnnxRuntimeSession
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.processing.batching import HostForm

Array = npt.NDArray[Any]
INFER = "tumorseg_runtime.backends.onnxruntime.OnnxRuntimeSession.infer"
FIVE = slice(2, 7)  # columns of a lesion of five pixels

_infer, _submit = OnnxRuntimeSession.infer, Segmenter.submit  # before anything is broken


def answered(change: Callable[[Array], Array]) -> Apply:
    """Another answer to a batch: change(logits or masks (N, K, h, w))."""

    def infer(self: OnnxRuntimeSession, batch: Array) -> Array:
        return np.ascontiguousarray(change(_infer(self, batch).copy()))

    return patched((INFER, infer))


def where(test: Callable[[int], bool], change: Callable[[Array], Array]) -> Apply:
    """A wrong answer to batches of some sizes alone."""
    return answered(lambda found: change(found) if test(len(found)) else found)


def shifted_up(found: Array) -> Array:
    """Every logit a little higher; a mask grows by a column."""
    return found + np.float32(1) if found.dtype == np.float32 else np.maximum(found, np.roll(found, 1, -1))


def first_repeated(found: Array) -> Array:
    """The first image answers for the second, too."""
    found[1:2] = found[:1]
    return found


def made_up(found: Array) -> Array:
    """Five pixels of tumour in a corner, where the network says no."""
    found[:, :, 2, FIVE] = 8 if found.dtype == np.float32 else 1
    return found


def emptied(found: Array) -> Array:
    """The last image has no tumour."""
    found[-1] = found.min()
    return found


@contextlib.contextmanager
def one_call_behind(network: BedNetwork, folder: Path) -> Iterator[Device]:
    """Two output buffers in turn, and the wrong one is read."""
    before: list[Array] = []

    def infer(self: OnnxRuntimeSession, batch: Array) -> Array:
        now = _infer(self, batch)
        last = before.pop() if before else now
        before.append(now)
        return last if last.shape == now.shape else now

    with mock.patch(INFER, infer):
        yield Device(network.bundle, file_changed=False)


@contextlib.contextmanager
def one_buffer(network: BedNetwork, folder: Path) -> Iterator[Device]:
    """All calls write their answer into one buffer, which a second thread overwrites."""
    buffers: dict[tuple[int, ...], Array] = {}

    def infer(self: OnnxRuntimeSession, batch: Array) -> Array:
        found = _infer(self, batch)
        buffer = buffers.setdefault(found.shape, np.empty_like(found))
        buffer[:] = found
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.02)  # the other thread's turn
        return buffer

    with mock.patch(INFER, infer):
        yield Device(network.bundle, file_changed=False)


@contextlib.contextmanager
def one_input(network: BedNetwork, folder: Path) -> Iterator[Device]:
    """All calls gather their batch in one buffer, which a second thread overwrites."""
    buffers: dict[tuple[int, ...], Array] = {}

    def gather(self: HostForm, prepared: Any) -> Array:
        found = np.stack(prepared)
        buffer = buffers.setdefault(found.shape, np.empty_like(found))
        buffer[:] = found
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.02)  # the other thread's turn
        return buffer

    with mock.patch("tumorseg_runtime.processing.batching.HostForm.gather", gather):
        yield Device(network.bundle, file_changed=False)


@contextlib.contextmanager
def wrong_rest(network: BedNetwork, folder: Path) -> Iterator[Device]:
    """Wrong where a batch is smaller than the one before it, as the rest of a list is."""
    last = [0]

    def infer(self: OnnxRuntimeSession, batch: Array) -> Array:
        found = _infer(self, batch).copy()
        before, last[0] = last[0], len(batch)
        return shifted_up(found) if len(batch) < before else found

    with mock.patch(INFER, infer):
        yield Device(network.bundle, file_changed=False)


def _order(change: Callable[[Array], Array]) -> Apply:
    """Another order of the answers between session and images."""

    def submit(self: Segmenter, prepared: Any, *, timeout_s: float | None = None) -> Callable[[], Array]:
        answers = _submit(self, prepared, timeout_s=timeout_s)
        return lambda: np.ascontiguousarray(change(answers()))

    return patched(("tumorseg_runtime.inference.segmenter.Segmenter.submit", submit))


def _lookup(network: BedNetwork) -> set[bytes]:
    return {item.tensor.tobytes() for item in network.golden}


@contextlib.contextmanager
def right_on_golden_images(network: BedNetwork, folder: Path) -> Iterator[Device]:
    """An artefact that knows the golden images by heart, and errs on all others of the served network."""
    known = _lookup(network)

    def infer(self: OnnxRuntimeSession, batch: Array) -> Array:
        found = _infer(self, batch).copy()
        if batch.dtype == np.float32 and batch.shape[1:] == network.golden[0].tensor.shape:
            for logits, tensor in zip(found, batch, strict=True):
                if tensor.tobytes() not in known and not _of_conformance(self):
                    logits += np.float32(1)
        return found

    with mock.patch(INFER, infer):
        yield Device(network.bundle, file_changed=False)


def _of_conformance(session: OnnxRuntimeSession) -> bool:
    """The conformance network has two classes, the test bed's one."""
    return session._session.get_outputs()[0].shape[1] == 2  # type: ignore[no-any-return]


MUTANTS = (
    *(
        Mutant(name, "session", apply)
        for name, apply in (
            ("wrong at batch 1 alone", where(lambda size: size == 1, shifted_up)),
            ("wrong at batch 2 alone", where(lambda size: size == 2, shifted_up)),
            ("wrong at batch 3 alone", where(lambda size: size == 3, shifted_up)),
            ("wrong at batch 4 alone", where(lambda size: size == 4, shifted_up)),
            ("wrong from batch 5 on", where(lambda size: size >= 5, shifted_up)),
            ("wrong at batch 6 alone", where(lambda size: size == 6, shifted_up)),
            ("wrong at batch 7 alone", where(lambda size: size == 7, shifted_up)),
            ("wrong at batch 16 alone", where(lambda size: size == 16, shifted_up)),
            ("wrong from batch 17 on", where(lambda size: size > 16, shifted_up)),
            ("wrong at odd batches above 1", where(lambda size: size > 1 and size % 2 == 1, shifted_up)),
            ("answers of a batch reversed in the session", answered(lambda found: found[::-1])),
            ("answers of a batch shifted by one", answered(lambda found: np.roll(found, 1, 0))),
            ("first answer of a batch repeated", answered(first_repeated)),
            ("last answer of a batch lost", where(lambda size: size > 1, lambda found: found[:-1])),
            ("last answer of a batch empty", where(lambda size: size > 1, emptied)),
            ("lesion of five pixels made up", answered(made_up)),
            ("answer mirrored", answered(lambda found: found[..., ::-1])),
            ("answer upside down", answered(lambda found: found[..., ::-1, :])),
            ("classes of the answer exchanged and negated", answered(lambda found: -found[:, ::-1])),
            ("results of a batch out of order", _order(lambda found: found[::-1])),
            ("results of a batch out of order from 3 on", _order(lambda f: f[::-1] if len(f) > 2 else f)),
            ("one output buffer for all threads", one_buffer),
            ("one input buffer for all threads", one_input),
            ("wrong in the rest of a list alone", wrong_rest),
        )
    ),
    Mutant("logits of the call before", "session", one_call_behind, late=True),
    Mutant(
        "right on the golden images alone",
        "session",
        right_on_golden_images,
        beyond="It answers rightly on every image of this network that the device holds, and on the "
        "conformance network: whoever has no other image with PyTorch's answer cannot tell.",
    ),
)
