"""Parity of every artefact under every backend of this machine: runtime's comparison over whole sets.

Three sets: the golden images, whose tensors and logits PyTorch left in the bundle; a part of the run's
split, on which PyTorch runs here and now with the tensors that training makes; and edge cases. Artefacts
always see what the runtime makes of the file's bytes, so both paths of preprocessing are compared bit by bit
as well, and the masks at the image's own size are those that a user gets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumorseg_benchmarks.parity.deploy_parity import deploy_candidates, deploy_variants
from tumorseg_benchmarks.parity.edge_cases import edge_reference
from tumorseg_benchmarks.parity.fp16_reference import is_asked, rounded_reference
from tumorseg_benchmarks.parity.noninferiority import DiceScores
from tumorseg_benchmarks.parity.references import (
    Margin,
    ReferenceSet,
    find_thinnest,
    golden_reference,
    split_reference,
)
from tumorseg_benchmarks.parity.rows import CONFORMANCE, Compared, ParityRow
from tumorseg_benchmarks.variants.candidates import Candidate, open_candidate, why_not
from tumorseg_benchmarks.variants.variants import PYTORCH, VARIANTS, Variant
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import (
    BackendError,
    BundleError,
    CheckFailedError,
    InputError,
)
from tumorseg_runtime.core.progress import Tell, parts, silent
from tumorseg_runtime.core.session import Session
from tumorseg_runtime.inference.segmenter import BATCH_SIZE, Segmenter, door_of
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.check_prediction import Predicted
from tumorseg_runtime.parity.compare import ParityReport
from tumorseg_runtime.parity.conformance import check_conformance
from tumorseg_runtime.parity.replay import IN_ONE_LIST, replay
from tumorseg_runtime.processing.decision import decide
from tumorseg_train.report.noninferiority import REFUSED as INFERIOR

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

CONFORMANCE_COST = 10.0  # of its 60 small files, in images
BoolArray = npt.NDArray[np.bool_]
Progress = Callable[[str], None]
Each = Callable[[int, BoolArray], None]  # index of the image, masks (K, h, w) at the network's size


def compare(
    session: Session,
    label: str,
    reference: ReferenceSet,
    contract: Contract,
    batch_size: int = 1,
    each: Each = lambda index, masks: None,
    share: Tell = silent,
) -> ParityReport:
    """A set of images through the door that serves, against the reference (`tumorseg_runtime.parity.replay`).

    batch_size: images of one inference; the images go as one list, and the last batch is what is left.
    each: is told what was decided at the network's size on every image; not where a session gives masks.
    share: told the share that is done.
    """
    door = Segmenter(contract, session, batch_size)

    def tell(index: int, prediction: Predicted) -> None:
        if prediction.own_logits is not None:
            each(index, decide(prediction.own_logits, contract))

    return replay(
        door,
        reference.items(),
        reference.budget(session.info.precision),
        IN_ONE_LIST,
        artefact=label,
        scale=reference.unit,
        each=tell,
        tell=share,
    )


def check_parity(
    bundle: Bundle,
    run: Run | None,
    part: str,
    limit: int,
    progress: Progress = lambda line: None,
    variants: Sequence[Variant] = VARIANTS,
    device_folder: Path | None = None,
    thinnest: int = 0,
    tell: Callable[[tuple[Margin, ...]], None] = lambda margins: None,
    share: Tell = silent,
) -> list[ParityRow]:
    """Compare all variants with PyTorch: on the golden images and, where a run is given, on its split.

    Golden images go one by one and all in one batch, which a graph that was frozen at one image would not
    survive. With a run the network itself is judged on them first: it must still say what it said at export;
    edge cases come last, and FP16 on the CPU is also held against the network with its weights in FP16.
    thinnest: so many images of the part come first, those with the thinnest margins; `tell` hears of them.
    share: told the share that is done.
    Raises BundleError where the run is not the bundle's, BackendError where no artefact runs here.
    """
    golden = golden_reference(bundle)
    sets = [(golden, 1), (golden, len(golden.images))]
    halves: list[tuple[ReferenceSet, int]] = []
    rows: list[ParityRow] = []
    able = [one.name for one in variants if one.engine != PYTORCH and why_not(one, bundle, run) is None]
    costs = [2.0 if run is not None else 0.0] + [1.0] * (len(able) + len(deploy_variants(bundle)))
    shares = iter(parts(share, costs))
    asking = parts(next(shares), [1, 2, 2, 1])
    if run is not None:
        check_provenance(bundle, run)
        pytorch = open_candidate(variants[0], bundle, run, None)
        assert pytorch.session is not None  # PyTorch on the CPU runs wherever a run can be opened
        progress("PyTorch on the golden images with a grey level of noise")
        golden = golden.with_yardstick(pytorch.session, bundle.contract)
        sets = [(golden, 1), (golden, len(golden.images))]
        rows.append(score(pytorch, golden, 1, bundle.contract, progress))
        first: Sequence[Any] = ()
        if thinnest:
            progress(f"PyTorch on all of the run's {part} images, for the thinnest margins")
            first, margins = find_thinnest(run, pytorch.session, part, thinnest, BUDGETS["fp32"])
            tell(margins)
        progress(f"PyTorch on the run's {part} images")
        split = split_reference(run, pytorch.session, part, limit, first, asking[1])
        sets.append((split.with_yardstick(pytorch.session, bundle.contract, asking[2]), 1))
        sets.append((edge_reference(pytorch.session, bundle.contract, golden.unit), 1))
        if any(is_asked(variant) and why_not(variant, bundle, run) is None for variant in variants):
            progress("PyTorch with weights in FP16 on the golden images")
            halves.append((rounded_reference(run.model(), golden, bundle.contract), 1))
    for candidate in _candidates(bundle, run, variants, device_folder):
        if candidate.session is None:
            rows.append(not_opened(candidate))
            continue
        largest = candidate.session.input.max_batch
        asked = [
            (reference, batch)
            for reference, batch in (*sets, *(halves if is_asked(candidate.variant) else ()))
            if largest is None or batch <= largest
        ]
        costs = [CONFORMANCE_COST, *(float(len(reference.images)) for reference, _ in asked)]
        first_share, *more = parts(next(shares, silent), costs)
        if candidate.variant.engine != PYTORCH:
            rows.append(conformance_row(candidate, bundle.contract, progress, first_share))
        for (reference, batch), one in zip(asked, more, strict=True):
            rows.append(score(candidate, reference, batch, bundle.contract, progress, one))
    if all(row.status == "unverified" for row in rows if row.variant.engine != PYTORCH):
        reasons = "; ".join(sorted({row.reason for row in rows if row.reason}))
        raise BackendError(
            f"{bundle.root}: no artefact could be compared on this machine ({reasons}), "
            "expected at least one backend: install the extra cpu"
        )
    return rows


def _candidates(
    bundle: Bundle, run: Run | None, variants: Sequence[Variant], device_folder: Path | None
) -> Iterator[Candidate]:
    """All variants but PyTorch on the CPU, which is the reference, then the bundle's deploy forms; each is
    opened when it is asked for."""
    for variant in variants:
        if variant.engine != PYTORCH or (run is not None and variant.device != "cpu"):
            yield open_candidate(variant, bundle, run, None, device_folder)
    yield from deploy_candidates(bundle)


def conformance_row(
    candidate: Candidate, contract: Contract, progress: Progress, tell: Tell = silent
) -> ParityRow:
    """The conformance files through the door, on the candidate's backend."""
    variant = candidate.variant
    progress(f"{variant.label}: conformance files")

    try:
        found = check_conformance(
            door_of, variant.engine, variant.device, variant.precision, contract, full=True, tell=tell
        )
    except (CheckFailedError, BackendError, InputError) as error:
        return ParityRow(variant, CONFORMANCE, BATCH_SIZE, "refused", str(error), None)
    status = "passed" if found.report.passed else "refused"
    return ParityRow(variant, CONFORMANCE, BATCH_SIZE, status, "; ".join(found.unverified), found.report)


def not_opened(candidate: Candidate) -> ParityRow:
    """A row without figures. A CPU needs nothing but the file, so one that does not open is a breach; on a
    GPU as much may be wrong with the provider's libraries, and nothing is known of the file."""
    refused = candidate.failed and candidate.variant.group == "cpu"
    status = "refused" if refused else "unverified"
    return ParityRow(candidate.variant, "all", None, status, candidate.reason, None)


def score(
    candidate: Candidate,
    reference: ReferenceSet,
    batch: int,
    contract: Contract,
    progress: Progress,
    tell: Tell = silent,
) -> ParityRow:
    """One row: compare a candidate that has a session with a reference, in calls of `batch` images."""
    session, variant, name = candidate.session, candidate.variant, reference.name
    assert session is not None
    gray_only = session.input.shape(contract)[0] < contract.channels
    if gray_only and all(image.pixels().ndim == 3 for image in reference.images):
        return ParityRow(variant, name, batch, "unverified", f"none of the {name} images is gray", None)
    progress(f"{variant.label}: {len(reference.images)} {name} images in batches of {batch}")
    scores = DiceScores(reference, contract)
    kept: dict[int, npt.NDArray[np.uint8]] = {}

    def each(index: int, masks: npt.NDArray[np.bool_]) -> None:
        kept[index] = np.packbits(masks.any(axis=0))
        scores.add(index, masks)

    try:
        report = compare(session, variant.label, reference, contract, batch, each, tell)
    except (CheckFailedError, BackendError, InputError) as error:
        return ParityRow(variant, name, batch, "refused", str(error), None)
    noninferiority = scores.verdict()
    reason, passed = "", report.passed
    if not passed and variant.precision != "fp32" and report.only_amounts and scores.overrules(report):
        passed, reason = True, "as good as PyTorch by the ground truth, which has the last word"
    passed = passed and not (noninferiority and noninferiority.status == INFERIOR)
    status = "passed" if passed else "refused"
    if passed and (left_open := (reference.unverified or {}).get(variant.precision)):
        status, reason = "unverified", left_open
    worst = _worst(report, reference, kept, contract)
    return ParityRow(variant, name, batch, status, reason, report, noninferiority, reference.yardstick, worst)


def _worst(
    report: ParityReport, reference: ReferenceSet, kept: dict[int, npt.NDArray[np.uint8]], contract: Contract
) -> Compared | None:
    """kept: the masks by the image's index, packed; none of a session that gives masks alone."""
    index = [image.name for image in reference.images].index(report.worst.image)
    if index not in kept:
        return None
    theirs = np.asarray(decide(reference.logits[index], contract).any(axis=0))
    ours = np.unpackbits(kept[index], count=theirs.size).reshape(theirs.shape) > 0
    return Compared(reference.images[index].pixels(), theirs, ours)


def check_provenance(bundle: Bundle, run: Run) -> None:
    """Raise BundleError where the bundle was exported from another run or under another contract."""
    exported = bundle.provenance.get("checkpoint_sha256")
    if exported != run.checkpoint_sha256:
        raise BundleError(
            f"{bundle.root}: was exported from checkpoint {exported}, {run.root} holds "
            f"{run.checkpoint_sha256}: give the run that it was made from, or export again"
        )
    logits_of = dataclasses.replace(run.contract, temperature=bundle.contract.temperature)
    if bundle.contract != logits_of:  # a run may be calibrated later: that moves no logit and no mask
        raise BundleError(
            f"{bundle.root}: has another contract than {run.root}, expected the same: export again"
        )
