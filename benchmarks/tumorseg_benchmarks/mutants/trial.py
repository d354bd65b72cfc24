"""The trial: every mutant and every correct artefact before our gate and before the peers' criteria."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.mutants.gate import Finding, judge_device, judge_session
from tumorseg_benchmarks.mutants.mutant import Device, Mutant
from tumorseg_benchmarks.mutants.negative_controls import Correct
from tumorseg_benchmarks.mutants.peers import CRITERIA, refusal
from tumorseg_benchmarks.mutants.testbed import Laboratory, Network, Say
from tumorseg_runtime.backends.onnxruntime import open_file
from tumorseg_runtime.core.errors import BackendError, TumorsegError

FloatArray = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class MutantResult:
    """findings: of our gate; none means that the mutant lives.

    peers: by criterion, why it refuses; empty where it accepts. seen: False where the file is the exporter's
    own, so that the peers' criteria have nothing to see.
    """

    mutant: Mutant
    findings: tuple[Finding, ...]
    peers: dict[str, str]
    seen: bool

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels of our gate that saw it, in their order."""
        return tuple(dict.fromkeys(finding.level for finding in self.findings))


@dataclasses.dataclass(frozen=True)
class CorrectResult:
    """alarms: by gate, ours under 'gate', why it refuses; empty where it accepts."""

    correct: Correct
    alarms: dict[str, str]


OURS = "gate"


def try_mutants(
    laboratory: Laboratory, mutants: Iterable[Mutant], say: Say = lambda line: None
) -> Iterator[MutantResult]:
    """Each mutant in turn; what it wrote is gone afterwards."""
    for number, mutant in enumerate(mutants):
        network = laboratory.networks[mutant.network]
        folder = laboratory.folder / f"mutant-{number}"
        folder.mkdir()
        with mutant.apply(network, folder) as device:
            findings = judge_device(device, network)
            peers = _peers(device, network) if device.file_changed else {}
        shutil.rmtree(folder)
        result = MutantResult(mutant, tuple(findings), peers, device.file_changed)
        say(f"{'killed' if findings else 'LIVES '}  {mutant.name}: {', '.join(result.levels) or '-'}")
        yield result


def _peers(device: Device, network: Network) -> dict[str, str]:
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


def try_correct(
    laboratory: Laboratory, artefacts: Iterable[Correct], say: Say = lambda line: None
) -> Iterator[CorrectResult]:
    """Each correct artefact in turn."""
    for correct in artefacts:
        network = laboratory.networks[correct.network]
        try:
            session = correct.open(network)
        except TumorsegError as error:
            alarms = dict.fromkeys([OURS, *(one.name for one in CRITERIA)], f"does not open: {error}")
        else:
            device = Device(network.bundle, correct.precision)
            findings = judge_session(session, network, device, (correct.batch,))
            alarms = {OURS: "; ".join(f"{one.level}: {one.line}" for one in findings)}
            for criterion in CRITERIA:
                alarms[criterion.name] = refusal(criterion, network, session.infer, correct.batch)
        result = CorrectResult(correct, alarms)
        raised = [name for name, reason in alarms.items() if reason]
        say(f"{correct.name}: {'alarm of ' + ', '.join(raised) if raised else 'accepted by all'}")
        yield result
