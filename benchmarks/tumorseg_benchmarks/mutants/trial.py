"""The trial: every mutant and every correct artefact before our gate and before the peers' criteria."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.mutants.by_command import Detection, alarms, detect
from tumorseg_benchmarks.mutants.mutant import Device, Mutant
from tumorseg_benchmarks.mutants.negative_controls import NegativeControl
from tumorseg_benchmarks.mutants.testbed import BedNetwork, Log, TestBed
from tumorseg_benchmarks.mutants.third_party_criteria import CRITERIA, refusal
from tumorseg_runtime.backends.onnxruntime import open_file
from tumorseg_runtime.core.errors import BackendError, TumorsegError
from tumorseg_runtime.core.files import make_folder

FloatArray = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class MutantResult:
    """findings: of our gate; none means that the mutant lives.

    third_party: by criterion, why it refuses; empty where it accepts. seen: False where the file is the
    exporter's own, so that the third-party criteria have nothing to see.
    """

    mutant: Mutant
    findings: tuple[Detection, ...]
    third_party: dict[str, str]
    seen: bool

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels of our gate that saw it, in their order."""
        return tuple(dict.fromkeys(finding.level for finding in self.findings))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the mutant by its name."""
        return {
            "name": self.mutant.name,
            "findings": [[one.level, one.line] for one in self.findings],
            "third_party": self.third_party,
            "seen": self.seen,
        }

    @classmethod
    def from_dict(cls, mutant: Mutant, values: dict[str, Any]) -> MutantResult:
        """What `to_dict` gave."""
        findings = tuple(Detection(level, line) for level, line in values["findings"])
        return cls(mutant, findings, values["third_party"], values["seen"])


@dataclasses.dataclass(frozen=True)
class ControlResult:
    """alarms: by gate, ours under 'gate', why it refuses; empty where it accepts."""

    control: NegativeControl
    alarms: dict[str, str]


OURS = "gate"


def try_mutants(
    test_bed: TestBed, mutants: Iterable[Mutant], log: Log = lambda line: None
) -> Iterator[MutantResult]:
    """Each mutant in turn; what it wrote is gone afterwards."""
    for number, mutant in enumerate(mutants):
        network = test_bed.networks[mutant.network]
        folder = test_bed.folder / f"mutant-{os.getpid()}-{number}"
        make_folder(folder)
        with mutant.apply(network, folder) as device:
            findings = detect(device, network)
            third_party = _third_party(device, network) if device.file_changed else {}
        shutil.rmtree(folder)
        result = MutantResult(mutant, tuple(findings), third_party, device.file_changed)
        log(f"{'killed' if findings else 'LIVES '}  {mutant.name}: {', '.join(result.levels) or '-'}")
        yield result


def _third_party(device: Device, network: BedNetwork) -> dict[str, str]:
    """What each criterion says of the artefact's file, opened by ONNX Runtime as it comes."""
    path = device.bundle.root / device.bundle.artefact("onnx", device.precision).file
    try:
        session = open_file(path, "cpu", None)
    except BackendError as error:
        return {criterion.name: f"does not open: {error}" for criterion in CRITERIA}
    name = session.get_inputs()[0].name

    def run(batch: FloatArray) -> FloatArray:
        try:
            (logits,) = session.run(None, {name: batch})
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise BackendError(str(error).partition("\n")[0]) from error
        return np.asarray(logits)

    return {criterion.name: refusal(criterion, network, run) for criterion in CRITERIA}


def try_controls(
    test_bed: TestBed, artefacts: Iterable[NegativeControl], log: Log = lambda line: None
) -> Iterator[ControlResult]:
    """Each correct artefact in turn."""
    for control in artefacts:
        network = test_bed.networks[control.network]
        try:
            session = control.open(network)
        except TumorsegError as error:
            raised_by = dict.fromkeys([OURS, *(one.name for one in CRITERIA)], f"does not open: {error}")
        else:
            device = Device(network.bundle, control.precision)
            found = alarms(session, network, device, control.batch)
            raised_by = {OURS: "; ".join(f"{one.level}: {one.line}" for one in found)}
            for criterion in CRITERIA:
                raised_by[criterion.name] = refusal(criterion, network, session.infer, control.batch)
        result = ControlResult(control, raised_by)
        raised = [name for name, reason in raised_by.items() if reason]
        log(f"{control.name}: {'alarm of ' + ', '.join(raised) if raised else 'accepted by all'}")
        yield result
