"""Our gate on a device: every level that the project has, with the budgets of
`tumorseg_runtime.parity.compare`.

Nothing here compares: each level calls what export, `tumorseg verify` or `tumorseg parity` calls.

    seal            every file's SHA-256, as any opening of a bundle checks it
    device folder   engines and ranking belong to this very bundle and device
    golden vectors  odd files of every kind, bytes -> pixels -> tensor
    proof           golden images in several batch sizes, as the exporter and `verify` replay them
    provenance         the bundle is of this run and has its contract, as `parity` asks first
    split           test images of the run, and all golden images in one batch, as `parity` does
    rounding        FP16 files against the network with its weights in FP16, as `parity` does
    conformance     the conformance files through the door, as `verify` and the self-test do
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial

from tumorseg_benchmarks.mutants.mutant import Device
from tumorseg_benchmarks.mutants.testbed import BedNetwork
from tumorseg_benchmarks.parity.fp16_reference import PRECISION
from tumorseg_benchmarks.parity.parity import ReferenceSet, check_provenance, compare, golden_reference
from tumorseg_benchmarks.parity.preprocess_paths import PATHS, REFUSED, check_vectors
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import TumorsegError
from tumorseg_runtime.core.session import Session
from tumorseg_runtime.device.cache import read_ranking
from tumorseg_runtime.device.engines import engines_in, find_engine
from tumorseg_runtime.inference.segmenter import CONFORMANCE_BAND, Segmenter, door_of
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.conformance import check_conformance
from tumorseg_runtime.parity.reference import load_golden
from tumorseg_runtime.parity.replay import full_plan, replay

# The budgets when the last ten mutants were written. Other ones need ten new mutants (docs/mutants.md).
FROZEN_AT = "ebb87a9"
FROZEN = {
    "fp32": {"relative_error": 1e-3, "flipped_share": 2e-5, "dice": 0.999, "free_pixels": 2},
    "fp16": {"relative_error": 0.25, "flipped_share": 1e-3, "dice": 0.99, "free_pixels": 8},
}
BATCH_SIZES = (1, 4)
LEVELS = (
    "seal",
    "device folder",
    "golden vectors",
    "proof",
    "provenance",
    "split",
    "rounding",
    "conformance",
)


@dataclasses.dataclass(frozen=True)
class Detection:
    """One reason why a device must not serve: the level that saw it, and its line."""

    level: str
    line: str


def changed_budgets() -> list[str]:
    """Budgets that are no longer the frozen ones, one line each."""
    return [
        f"{precision} {name} is {getattr(BUDGETS[precision], name)}, {value} was frozen at {FROZEN_AT}"
        for precision, values in FROZEN.items()
        for name, value in values.items()
        if getattr(BUDGETS[precision], name) != value
    ]


def detect(device: Device, network: BedNetwork) -> list[Detection]:
    """All that the gate finds wrong with a device, level by level; empty for one that may serve."""
    found = [Detection("seal", line) for line in device.bundle.problems()]
    if found:
        return found  # nobody opens such a bundle, so nothing further can be asked
    if device.folder is not None:
        found += _at("device folder", partial(_device_folder, device))
    found += [
        Detection("golden vectors", f"{check.vector}: {check.reason}")
        for check in check_vectors({"runtime": PATHS["runtime"]})
        if check.status == REFUSED
    ]
    try:
        session = open_session(device.bundle, precision=device.precision)
    except TumorsegError as error:
        return [*found, Detection("proof", str(error))]
    return found + detect_in_session(session, network, device)


def detect_in_session(
    session: Session, network: BedNetwork, device: Device, batches: tuple[int, ...] = BATCH_SIZES
) -> list[Detection]:
    """What the levels from proof to conformance find on an open session. batches: sizes of the proof."""
    contract, whole = device.bundle.contract, len(network.golden)
    references = ((network.split, 1), (golden_reference(device.bundle), whole))
    halves = (network.rounded,) if device.precision == PRECISION else ()
    levels: list[tuple[str, Callable[[], Iterable[str]]]] = [
        *(("proof", partial(_parity, device, session, batch)) for batch in batches),
        ("provenance", partial(_provenance, device, network)),
        *(("split", partial(_split, session, one, contract, size)) for one, size in references),
        *(("rounding", partial(_split, session, one, contract, 1)) for one in halves),
        ("conformance", partial(_conformance, session, device)),
    ]
    return [finding for level, run in levels for finding in _at(level, run)]


def _parity(device: Device, session: Session, batch: int) -> Iterable[str]:
    door = Segmenter(device.bundle.contract, session, batch, band=CONFORMANCE_BAND)
    budget = BUDGETS[session.info.precision]
    plan = full_plan(batch)
    return replay(door, load_golden(device.bundle), budget, plan, artefact="artefact").breaches


def _conformance(session: Session, device: Device) -> Iterable[str]:
    """The conformance files through the door of this device, on the backend that serves."""
    info = session.info
    return check_conformance(
        door_of, info.backend, info.device, info.precision, device.bundle.contract, full=True
    ).report.breaches


def _provenance(device: Device, network: BedNetwork) -> Iterable[str]:
    check_provenance(device.bundle, network.run)
    return ()


def _split(session: Session, reference: ReferenceSet, contract: Contract, batch: int) -> Iterable[str]:
    return compare(session, "artefact", reference, contract, batch).breaches


def _device_folder(device: Device) -> tuple[str, ...]:
    """Raise where something in the device folder is not of this bundle; there must be something."""
    assert device.folder is not None
    ranking = read_ranking(device.folder, device.bundle)
    engines = engines_in(device.folder)
    if engines:
        find_engine(device.folder, device.bundle, device.precision)
    assert engines or ranking, "an empty device folder has no bug"
    return ()


def _at(level: str, run: Callable[[], Iterable[str]]) -> list[Detection]:
    """What a level says; an error of the project is its refusal to serve."""
    try:
        return [Detection(level, line) for line in run()]
    except TumorsegError as error:
        return [Detection(level, str(error))]
