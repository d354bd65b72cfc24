"""Parity of every artefact under every backend of this machine: runtime's comparison over whole sets.

Two sets: the golden images, whose tensors and logits PyTorch left in the bundle, and a part of the run's
split, on which PyTorch runs here and now with the tensors that training makes. Artefacts always see what
the runtime makes of the file's bytes, so both paths of preprocessing are compared bit by bit as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.inputs import EncodedImage, golden_inputs, split_inputs
from tumorseg_benchmarks.subjects import PYTORCH, SUBJECTS, Candidate, Subject, open_candidate
from tumorseg_runtime.bundle import Bundle
from tumorseg_runtime.contract import Contract
from tumorseg_runtime.errors import (
    BackendError,
    BundleError,
    CheckFailedError,
    InputError,
    OutputError,
)
from tumorseg_runtime.golden import load_golden
from tumorseg_runtime.parity import BUDGETS, ParityReport, compare_image, logit_scale
from tumorseg_runtime.preprocess import Preprocessor
from tumorseg_runtime.session import Session, checked_infer

if TYPE_CHECKING:
    from tumorseg_train.run import Run

FloatArray = npt.NDArray[np.float32]
Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Reference:
    """What PyTorch says about a set of images.

    name: 'golden', or the part of the split. logits: float32 (K, H, W) per image.
    tensor: float32 (C, H, W) of an image by its index, as PyTorch was given it; None where that is unknown.
    """

    name: str
    images: tuple[EncodedImage, ...]
    logits: tuple[FloatArray, ...]
    tensor: Callable[[int], FloatArray] | None


@dataclasses.dataclass(frozen=True)
class ParityRow:
    """Verdict on one subject over one set of images, in calls of `batch` images.

    status: 'passed', 'breached', or 'unverified' where the subject does not run on this machine.
    reason: why it is unverified, or what stopped the comparison; empty where `report` tells all.
    """

    subject: Subject
    images: str
    batch: int | None
    status: str
    reason: str
    report: ParityReport | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **dataclasses.asdict(self.subject),
            "subject": self.subject.name,
            "images": self.images,
            "batch": self.batch,
            "status": self.status,
            "reason": self.reason,
            "report": self.report.to_dict() if self.report else None,
        }

    @property
    def breaches(self) -> tuple[str, ...]:
        """One line per breach: subject, image, figure, budget."""
        if self.status != "breached":
            return ()
        return self.report.breaches if self.report else (f"{self.subject.label}: {self.reason}",)


def golden_reference(bundle: Bundle) -> Reference:
    """The golden images with what PyTorch made of them at export."""
    golden = load_golden(bundle)
    return Reference(
        "golden",
        tuple(golden_inputs(bundle)),
        tuple(item.logits for item in golden),
        lambda index: golden[index].tensor,
    )


def split_reference(run: Run, session: Session, part: str, limit: int) -> Reference:
    """At most `limit` (0: all) images of a part of the split, with what PyTorch makes of them now.

    session: the run's network; it sees the tensors of training's own dataset.
    """
    from tumorseg_train.loader import SplitDataset

    images = split_inputs(run, part, limit)
    dataset = SplitDataset(run.manifest(), part, run.contract, limit=limit)

    def tensor(index: int) -> FloatArray:
        return np.asarray(dataset[index][0].numpy(), np.float32)

    logits = tuple(
        checked_infer(session, tensor(index)[None], run.contract)[0] for index in range(len(images))
    )
    return Reference(part, tuple(images), logits, tensor)


def compare(
    session: Session, label: str, reference: Reference, contract: Contract, batch_size: int = 1
) -> ParityReport:
    """Bytes -> tensor -> logits -> decisions of a set of images, against the reference.

    Every call has exactly `batch_size` images: the last one is filled up with the first images of the set.
    Logits that are not finite, or of a wrong shape, are breaches of their image and stop nothing.
    """
    preprocess = Preprocessor(contract)
    scale = logit_scale(reference.logits)
    budget = BUDGETS[session.info.precision]
    found = []
    for indices in batches(len(reference.images), batch_size):
        chosen = [reference.images[index] for index in indices]
        tensors = [preprocess(image.pixels(), image.name) for image in chosen]
        logits = session.infer(np.stack(tensors))
        if logits.dtype != np.float32:
            raise OutputError(f"{label} gives {logits.dtype} logits, expected float32: export it again")
        for place, index in enumerate(indices):
            if index < indices[0]:
                break  # filled up: judged before
            pair = (reference.tensor(index), tensors[place]) if reference.tensor else None
            found.append(
                compare_image(
                    chosen[place].name,
                    reference.logits[index],
                    logits[place] if place < len(logits) else np.empty(0, np.float32),
                    logit_threshold=contract.logit_threshold,
                    scale=scale,
                    budget=budget,
                    tensors=pair,
                )
            )
    info = session.info
    return ParityReport(
        label, info.backend, info.device, info.precision, info.versions, budget, scale, tuple(found)
    )


def batches(count: int, size: int) -> Iterator[list[int]]:
    """Indices 0..count-1 in batches of exactly `size`; the last batch begins anew at 0 to be full."""
    for start in range(0, count, size):
        yield [(start + offset) % count for offset in range(size)]


def check_parity(
    bundle: Bundle,
    run: Run | None,
    part: str,
    limit: int,
    progress: Progress = lambda line: None,
    subjects: Sequence[Subject] = SUBJECTS,
    device_folder: Path | None = None,
) -> list[ParityRow]:
    """Compare all subjects with PyTorch: on the golden images and, where a run is given, on its split.

    Golden images go one by one and all in one batch, which a graph that was frozen at one image would not
    survive. With a run the network itself is judged on them first: it must still say what it said at export.
    Raises BundleError where the run is not the bundle's, BackendError where no artefact runs here.
    """
    golden = golden_reference(bundle)
    sets = [(golden, 1), (golden, len(golden.images))]
    rows: list[ParityRow] = []
    if run is not None:
        check_kinship(bundle, run)
        pytorch = open_candidate(subjects[0], bundle, run, None)
        assert pytorch.session is not None  # PyTorch on the CPU runs wherever a run can be opened
        rows.append(judge(pytorch, golden, 1, bundle.contract, progress))
        progress(f"PyTorch on the run's {part} images")
        sets.append((split_reference(run, pytorch.session, part, limit), 1))
    for subject in subjects:
        if subject.engine == PYTORCH and (run is None or subject.device == "cpu"):
            continue
        candidate = open_candidate(subject, bundle, run, None, device_folder)
        if candidate.session is None:
            rows.append(not_opened(candidate))
            continue
        largest = candidate.session.input.max_batch
        rows += [
            judge(candidate, reference, batch, bundle.contract, progress)
            for reference, batch in sets
            if largest is None or batch <= largest
        ]
    if all(row.status == "unverified" for row in rows if row.subject.engine != PYTORCH):
        reasons = "; ".join(sorted({row.reason for row in rows if row.reason}))
        raise BackendError(
            f"{bundle.root}: no artefact could be compared on this machine ({reasons}), "
            "expected at least one backend: install the extra cpu"
        )
    return rows


def not_opened(candidate: Candidate) -> ParityRow:
    """A row without figures. A CPU needs nothing but the file, so one that does not open is a breach; on a
    GPU as much may be wrong with the provider's libraries, and nothing is known of the file."""
    breached = candidate.failed and candidate.subject.group == "cpu"
    status = "breached" if breached else "unverified"
    return ParityRow(candidate.subject, "all", None, status, candidate.reason, None)


def judge(
    candidate: Candidate, reference: Reference, batch: int, contract: Contract, progress: Progress
) -> ParityRow:
    """One row: compare a candidate that has a session with a reference, in calls of `batch` images."""
    assert candidate.session is not None
    subject, name = candidate.subject, reference.name
    progress(f"{subject.label}: {len(reference.images)} {name} images in batches of {batch}")
    try:
        report = compare(candidate.session, subject.label, reference, contract, batch)
    except (CheckFailedError, BackendError, InputError) as error:
        return ParityRow(subject, name, batch, "breached", str(error), None)
    return ParityRow(subject, name, batch, "passed" if report.passed else "breached", "", report)


def check_kinship(bundle: Bundle, run: Run) -> None:
    """Raise BundleError where the bundle was exported from another run or under another contract."""
    exported = bundle.provenance.get("checkpoint_sha256")
    if exported != run.checkpoint_sha256:
        raise BundleError(
            f"{bundle.root}: was exported from checkpoint {exported}, {run.root} holds "
            f"{run.checkpoint_sha256}: give the run that it was made from, or export again"
        )
    if bundle.contract != run.contract:
        raise BundleError(
            f"{bundle.root}: has another contract than {run.root}, expected the same: export again"
        )
