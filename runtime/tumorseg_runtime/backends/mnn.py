"""MNN: the fastest on CPUs, and the one to be careful with.

MNN holds the GIL while it computes, so it has a process of its own (`mnn_worker`), which is also replaced
when it dies or hangs. In a batch it gives other logits than for single images: images go one at a time. A
value that is not finite can vanish inside, and a wrong shape gives no error: both are caught before.

Two backends share this module and the file `model.mnn`, since only the way of computing differs:

    mnn         Winograd's method at MNN's usual level: logits err by some 4e-4 standard deviations
    mnn-exact   at its low level (`winograd_level`): logits as exact as ONNX Runtime's, in 1.6 times the time

An artefact of the format mnn is proven under both. One of the format mnn-exact is not proven under mnn, and
mnn does not open it.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.backends.worker import Worker
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.backend import BackendSpec
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.reading import memory_file
from tumorseg_runtime.core.session import LOGITS, InputForm, SessionInfo, check_batch

SCRIPT = Path(__file__).with_name("mnn_worker.py")
LIMIT_S = 300.0  # seconds for one image; a session that must notice sooner is interrupted by its owner


class MnnSession:
    """A `Session` on one MNN file. Threads may share it; their images take turns.

    The worker ends with the session: by `close`, at the end of a `with` block, or when it is garbage.
    """

    output = LOGITS
    restarts = True

    def __init__(self, worker: Worker, contract: Contract, info: SessionInfo) -> None:
        self._worker = worker
        self._contract = contract
        self.input = InputForm()
        self.info = info

    def infer(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 (N, C, H, W) -> float32 logits (N, K, H, W), image by image.

        Raises InputError for another shape, BackendError where MNN fails, or its process dies or hangs; the
        next call then has a new one.
        """
        contract = self._contract
        check_batch(batch, contract)
        shape = (len(contract.classes), contract.height, contract.width)
        logits = np.empty((len(batch), *shape), np.float32)
        for image, one in zip(batch, logits, strict=True):
            answer = self._worker.ask(np.ascontiguousarray(image).data.cast("B"))
            one[:] = np.frombuffer(answer, np.float32).reshape(shape)
        return logits

    def interrupt(self) -> None:
        """End the worker now: a call that waits for it raises BackendError, the next one has a new worker."""
        self._worker.interrupt()

    def close(self) -> None:
        """End the worker; later calls raise BackendError."""
        self._worker.close()

    def __enter__(self) -> MnnSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def why_unavailable(device: str) -> str | None:
    """None where this machine can run the device ('cpu'), else the reason in short."""
    if device != "cpu":
        raise InputError(f"device is '{device}', expected cpu: the mnn backends have no other")
    return None if importlib.util.find_spec("MNN") else "MNN is not installed"


def open_session(
    spec: BackendSpec, bundle: Bundle, device: str, precision: str, threads: int | None
) -> MnnSession:
    """A session on the artefact of the first format that is there, in this precision.

    Option winograd_level: MNN's usual one where it is not named. Raises BackendError where it cannot be had
    or the file is not the contract's network, BundleError where the bundle has no such artefact.
    """
    there = {artefact.format for artefact in bundle.artefacts}
    format = next((format for format in spec.formats if format in there), spec.formats[0])
    artefact, contract = bundle.artefact(format, precision), bundle.contract
    size = [contract.height, contract.width]
    model = memory_file(bundle.read(artefact.file))  # MNN takes nothing but a path
    setup = {
        "file": f"/proc/self/fd/{model}",
        "threads": threads or len(os.sched_getaffinity(0)),  # MNN's own default is 4 on any machine
        "winograd_level": spec.options.get("winograd_level"),
        "shapes": {"image": [1, contract.channels, *size], "logits": [1, len(contract.classes), *size]},
    }
    worker = Worker(spec.name, SCRIPT, setup, LIMIT_S, files=(model,))
    return MnnSession(worker, contract, SessionInfo(spec.name, device, precision, worker.facts["versions"]))
