"""The conformance network through the door: what the runtime does around a network, proven bit by bit.

Its logits are a simple function of the pixels, so all that must come out of every conformance file is known.
It is opened by the backend that serves; where that has no such artefact, the function itself stands in, and
the door around it is proven all the same.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tumorseg_runtime.backends import open_session
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.conformance.files import CONTRACTS, vectors
from tumorseg_runtime.conformance.guard_rule import refuse_other_guard
from tumorseg_runtime.conformance.network import conformance_bundle, expected_logits
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BundleError
from tumorseg_runtime.core.files import write_bytes
from tumorseg_runtime.core.progress import Tell, part, silent
from tumorseg_runtime.core.session import InProcess, InputForm, Session, SessionInfo
from tumorseg_runtime.parity.budget import Budget
from tumorseg_runtime.parity.compare import ParityReport
from tumorseg_runtime.parity.reference import Golden
from tumorseg_runtime.parity.replay import ALL, Door, Plan, replay
from tumorseg_runtime.parity.rules import tensor_rule

BEYOND = (5, 6, 7, 8, 9, 16, 33)  # images of a batch, more than serve by default
WRITTEN, QUICK_WRITTEN = 16, 4  # files whose outputs are written and read again
QUICK_PIXELS = 2**19  # a quick check leaves larger files out
# The network is one 1x1 convolution: in FP32 nothing but the last bits of a sum may differ. Where two pixels
# of a resized image lie on the threshold to within float32, they may be decided either way.
BUDGETS = {
    "fp32": Budget(relative_error=1e-5, free_pixels=2, flips_per_border=0.0),
    "fp16": Budget(relative_error=1e-2, free_pixels=8, flips_per_border=1.0),
    "bf16": Budget(relative_error=1e-1, free_pixels=8, flips_per_border=5.0),
    "int8": Budget(relative_error=5e-2, free_pixels=8, flips_per_border=1.0),
}

# Tensor and logits by network and frame, which the rules give slowly and always alike.
_EXPECTED: dict[tuple[str, str], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] = {}


class MakeDoor(Protocol):
    """Builds the door that serves on a session of a bundle."""

    def __call__(
        self, bundle: Bundle, session: Session, batch_size: int | None = None, logits: bool = True, /
    ) -> Door:
        """batch_size: None for the one that serves. logits: False where a GPU shall give masks alone."""


class RuleSession(InProcess):
    """The conformance network as the function that it is, for a backend that has no artefact of it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.input = InputForm()
        self.info = SessionInfo("rule", "cpu", "fp32", {})

    def infer(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 (N, C, h, w) -> float32 (N, 2, h, w)."""
        return np.stack([expected_logits(self._name, tensor) for tensor in batch]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Conformance:
    """report: of all files through the door. unverified: what could not be checked here, and why."""

    report: ParityReport
    unverified: tuple[str, ...]


def check_conformance(
    make: MakeDoor,
    backend: str,
    device: str,
    precision: str,
    contract: Contract,
    *,
    full: bool,
    tell: Tell = silent,
) -> Conformance:
    """Every conformance file through a door that `make` builds on this backend, device and precision.

    contract: of the bundle that serves; its channels choose the network, and its rule is that of the masks.
    full: all files, every batch size, stream and threads; else those of moderate size that are no DICOM, one
        by one and as one list.
    tell: the share that is done.
    Raises BackendError where the backend does not open its conformance artefact, ParityError where the door
    has not the bundle's input guard.
    """
    name = "rgb" if contract.channels == 3 else "gray"
    bundle = conformance_bundle(name, contract.rule)
    unverified = []
    try:
        session = open_session(bundle, backend=backend, device=device, precision=precision)
    except BundleError:
        session = RuleSession(name)
        unverified.append(f"{backend} has no conformance artefact in {precision}: a rule stood in for it")
    door = make(bundle, session)
    refuse_other_guard(bundle, door.guard)
    dicom = full and importlib.util.find_spec("pydicom") is not None
    if full and not dicom:
        unverified.append("DICOM conformance files: pydicom is not installed (extra dicom)")
    with tempfile.TemporaryDirectory(prefix="tumorseg-conformance-") as folder:
        files = list(_references(name, Path(folder), dicom=dicom, full=full))
        sizes = (1, 2, 3, 4, 5, 2 * door.batch_size + 1) if full else ()
        many = ALL if full else 0
        written = WRITTEN if full else QUICK_WRITTEN
        plan = Plan(ALL, (*sizes, ALL), many, (1, 2, 3) if full else (), min(8, many), written)
        artefact = f"conformance of {backend} {device} {precision}"
        budget = BUDGETS[door.info.precision]
        limit = session.input.max_batch
        beyond = [size for size in BEYOND if full and (limit is None or size <= limit)]
        first = part(tell, 0, 2) if beyond else tell
        report = replay(door, files, budget, plan, artefact=artefact, tell=first)
        if beyond:
            small = [item for item in files if item.pixels.size <= QUICK_PIXELS][: beyond[-1]]
            door, plan = make(bundle, session, beyond[-1]), Plan(lists=tuple(beyond))
            more = replay(door, small, budget, plan, artefact=artefact, tell=part(tell, 1, 2))
            report = dataclasses.replace(report, images=(*report.images, *more.images))
    return Conformance(report, tuple(unverified))


def _references(name: str, folder: Path, *, dicom: bool, full: bool) -> Iterator[Golden]:
    """Every frame of every conformance file that the contract takes, written into the folder."""
    contract = CONTRACTS[name]
    for vector in vectors():
        if (vector.dicom and not dicom) or name not in vector.contracts:
            continue
        if not full and vector.pixels.size > QUICK_PIXELS:
            continue
        path = folder / vector.name
        write_bytes(path, vector.data, durable=False)
        for index, pixels in enumerate(vector.frames):
            frame = f"{vector.name}[{index}]" if len(vector.frames) > 1 else vector.name
            if (name, frame) not in _EXPECTED:
                tensor = tensor_rule(pixels, contract)
                logits = expected_logits(name, tensor).astype(np.float32)
                tensor.flags.writeable = logits.flags.writeable = False
                _EXPECTED[name, frame] = tensor, logits
            yield Golden(
                frame, pixels, *_EXPECTED[name, frame], path, vector.spacings, index, len(vector.frames)
            )
