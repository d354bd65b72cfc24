"""From a checkpoint to a sealed bundle: load, golden images, every target, proof, seal."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from tumorseg_export.bundle.model_card import write_card
from tumorseg_export.bundle.sbom import write_sbom
from tumorseg_export.bundle.sign import write_signature
from tumorseg_export.bundle.staging import new_bundle_folder
from tumorseg_export.checkpoint.context import ExportContext, ExportResult
from tumorseg_export.checkpoint.decision import AgainstBackground, to_export
from tumorseg_export.checkpoint.provenance import provenance_of
from tumorseg_export.checkpoint.reader import Checkpoint, from_run
from tumorseg_export.engine.tensorrt_build import RtxOptions
from tumorseg_export.onnx.complexity import count_flops
from tumorseg_export.references.acceptance_images import Judged, choose_judged, make_judged
from tumorseg_export.references.calibration_images import CALIBRATION, choose_calibration
from tumorseg_export.references.golden_images import (
    GOLDEN,
    choose_items,
    make_golden,
    noise_in,
    write_golden,
)
from tumorseg_export.references.mask_shares import SHEET, contact_sheet, implausible, shares_of
from tumorseg_export.targets import tensorrt_rtx as tensorrt_rtx_export
from tumorseg_export.targets.registry import DEFAULT, Target, choose
from tumorseg_export.targets.validate_parity import require_validators, validate_parity
from tumorseg_runtime.bundle.bundle import (
    INDEX,
    INDEX_HASH,
    Artefact,
    Bundle,
    FileRecord,
    index_hash_text,
    sha256_of,
)
from tumorseg_runtime.core.errors import BackendError, CheckFailedError, InputError, TumorsegError
from tumorseg_runtime.core.files import write_text
from tumorseg_runtime.core.progress import Tell, part, parts, silent
from tumorseg_runtime.images.read import write_png
from tumorseg_runtime.parity.reference import Golden
from tumorseg_runtime.parity.yardstick import Yardstick
from tumorseg_runtime.processing.input_guard import FILE as GUARD
from tumorseg_train.networks.models import count_parameters
from tumorseg_train.networks.run import Run

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Log = Callable[[str], None]
Refuse = Callable[[str, TumorsegError], None]
ROOT = "onnx"  # what every other target is made from, or timed against: it is never left out


def export_run(run: Run, out: Path, **options: Any) -> Bundle:
    """Make the bundle of a run of ours at `out`; options and errors are `export_checkpoint`'s."""
    return export_checkpoint(from_run(run), out, **options)


def export_checkpoint(
    checkpoint: Checkpoint,
    out: Path,
    *,
    targets: Sequence[str] = DEFAULT,
    golden: int = GOLDEN,
    calibration: int = CALIBRATION,
    rtx: RtxOptions | None = None,
    key: Ed25519PrivateKey | None = None,
    notes: str = "",
    log: Log = lambda line: None,
    refuse: Refuse | None = None,
    tell: Tell = silent,
) -> Bundle:
    """Make the bundle of a checkpoint at `out`: whole and proven, or not at all.

    targets: names from `tumorseg_export.targets.registry`. golden: number of golden images, 3 or more.
    calibration: most images beside these to fit FP16 and to prove with; they stay out of the bundle.
    rtx: for the target tensorrt-rtx; None for the defaults. key: signs the bundle, None leaves it unsigned.
    notes: Markdown that ends the model card. log: called with one line per finished
    step. A bundle that stands at `out` is replaced at the very end.
    refuse: told the name of a target that cannot be made, or is not proven, with the error; the bundle is
        then sealed without it. None: the first such error is raised, and no bundle is written.
    tell: the share that is done, by what the steps cost on a CPU.
    Raises InputError (targets, golden, out, changed images, full disk), BackendError (nothing here to prove
    with), CheckFailedError and its ParityError (an artefact is not what was asked for).
    """
    chosen = choose(targets)
    for name, target in chosen.items():
        require_validators(name, target)
    rtx = RtxOptions() if rtx is None else rtx
    if "tensorrt-rtx" in chosen:
        tensorrt_rtx_export.check(rtx)  # now, and not after minutes of work
    asked = any(target.judged for target in chosen.values())
    costs = [120 if asked else 20, sum(6 * target.cost for target in chosen.values()), 24]  # seconds of one
    loading, making, noise, proof = parts(tell, [*costs, 34 * len(chosen)])  # DeepLabV3 on one core
    with new_bundle_folder(Path(out), log) as folder:
        context, judged, model_facts = _load(checkpoint, golden, calibration, rtx, log, loading, judged=asked)
        with _step(log, f"{len(context.golden)} golden images"):
            write_golden(context.golden, folder)
        if checkpoint.guard is not None:
            write_text(folder / GUARD, checkpoint.guard.to_text(), durable=False)
        if warning := implausible(shares_of((*context.golden, *context.calibration), context.contract)):
            write_png(folder / SHEET, contact_sheet(context.golden, context.contract), durable=False)
            log(f"warning: {warning}: look at {SHEET} in the bundle before you use it")
            model_facts["warning"] = warning
        results = _make_all(chosen, context, folder, log, refuse, making)
        for one in results.values():
            model_facts.update(one.facts)
        model_facts["gflop"] = round(_flops(list(results.values()), folder) / 1e9, 3)
        draft = _draft(checkpoint, folder, context, list(results.values()), model_facts)
        more = context.calibration
        with _step(log, "PyTorch on the same images with a grey level of noise"):
            yardstick = noise_in(context.model, (*context.golden, *more), context.contract, noise)
        del context  # the weights are no longer needed; the proofs have their own copy
        draft = _validate_all(draft, chosen, results, more, yardstick, judged, log, refuse, proof)
        with _step(log, "sealed"):
            write_card(draft, notes)
            write_sbom(draft)
            _seal(draft)
        if key is not None:
            write_signature(folder, key)
            log("signed")
    return Bundle.open(out)


def _load(
    checkpoint: Checkpoint,
    golden: int,
    calibration: int,
    rtx: RtxOptions,
    log: Log,
    tell: Tell,
    *,
    judged: bool,
) -> tuple[ExportContext, Judged | None, dict[str, Any]]:
    """The network with its golden and calibration images, those that judge INT8 if asked, and first facts."""
    contract, name = checkpoint.contract, f"{checkpoint.architecture} with {checkpoint.encoder}"
    with checkpoint.images() as manifest:
        items = choose_items(manifest, golden)
        items += choose_calibration(manifest, items, calibration)
        with _step(log, f"loaded {name}, ran {len(items)} images in PyTorch"):
            model = checkpoint.load()
            images = make_golden(model, manifest, items, contract, tell)
        jury = None
        if judged:
            chosen = choose_judged(manifest, items[golden:])
            with _step(log, f"ran {len(chosen)} more images in PyTorch, to judge INT8 by"):
                jury = make_judged(model, manifest, chosen, contract)
    facts: dict[str, Any] = {
        "architecture": checkpoint.architecture,
        "encoder": checkpoint.encoder,
        **({"options": checkpoint.options} if checkpoint.options else {}),
        **(model.facts if isinstance(model, AgainstBackground) else {}),
        "parameters": count_parameters(model),
    }
    network = to_export(model)
    context = ExportContext(network, contract, checkpoint.origin, images[:golden], rtx, images[golden:])
    return context, jury, facts


def _make_all(
    chosen: dict[str, Target],
    context: ExportContext,
    folder: Path,
    log: Log,
    refuse: Refuse | None,
    tell: Tell,
) -> dict[str, ExportResult]:
    made: dict[str, ExportResult] = {}
    shares = parts(tell, [target.cost for target in chosen.values()])
    for (name, target), share in zip(chosen.items(), shares, strict=True):
        before = set(folder.rglob("*"))
        with _or_refuse(name, refuse):
            _require(target, made)
            with _step(log, f"made {name}"):
                made[name] = target.make(context, folder)
        if name not in made:
            _remove(set(folder.rglob("*")) - before)
        share(1)
    return made


def _remove(files: Iterable[Path]) -> None:
    """What is left of a target that was refused."""
    for path in files:
        path.unlink()


@contextlib.contextmanager
def _or_refuse(name: str, refuse: Refuse | None) -> Iterator[None]:
    """What the block raises on purpose is told to `refuse`, where there is one and the target is not ROOT."""
    try:
        yield
    except (CheckFailedError, BackendError, InputError) as error:
        if refuse is None or name == ROOT:
            raise
        refuse(name, error)


def _require(target: Target, there: Collection[str]) -> None:
    """Raise CheckFailedError where what the target is made from was refused."""
    if lost := [need for need in target.needs if need not in there]:
        raise CheckFailedError(f"is made from {', '.join(lost)}, which was refused: put that right first")


def _flops(results: Sequence[ExportResult], folder: Path) -> int:
    file = next(one.artefact.file for one in results if one.artefact.format == "onnx")
    return count_flops(onnx.load(folder / file))


def _draft(
    checkpoint: Checkpoint,
    folder: Path,
    context: ExportContext,
    results: Sequence[ExportResult],
    facts: dict[str, Any],
) -> Bundle:
    """The bundle before proof and seal."""
    contract = checkpoint.contract
    size = f"{contract.height}x{contract.width}"
    return Bundle(
        root=folder,
        name=f"{checkpoint.architecture}-{checkpoint.encoder}-{size}-{checkpoint.sha256[:8]}",
        contract=contract,
        artefacts=tuple(one.artefact for one in results),
        golden=tuple(item.name for item in context.golden),
        files={},
        model=facts,
        training=checkpoint.training,
        provenance=provenance_of(checkpoint.origin, checkpoint.golden_from),
    )


def _validate_all(
    draft: Bundle,
    chosen: dict[str, Target],
    results: dict[str, ExportResult],
    calibration: Sequence[Golden],
    yardstick: Yardstick,
    judged: Judged | None,
    log: Log,
    refuse: Refuse | None,
    tell: Tell,
) -> Bundle:
    """The draft with the artefacts that passed, their certificates and facts; files of others are removed."""
    proven: dict[str, Artefact] = {}
    for number, (name, result) in enumerate(results.items()):
        target, share = chosen[name], part(tell, number, len(results))
        if refuse is None or target.instead_of not in proven:
            with _or_refuse(name, refuse):
                _require(target, proven)
                with _step(log, f"proved {result.artefact.file}"):
                    proven[name] = validate_parity(
                        draft, result.artefact, target, calibration, yardstick, judged, share
                    )
        if name not in proven:  # refused, or not needed
            _remove(draft.root / file for file in result.artefact.files)
    kept = {fact for name in proven for fact in results[name].facts}
    lost = {fact for result in results.values() for fact in result.facts} - kept
    facts = {fact: value for fact, value in draft.model.items() if fact not in lost}
    return dataclasses.replace(draft, artefacts=tuple(proven.values()), model=facts)


def _seal(draft: Bundle) -> None:
    """Write `bundle.json`, and check the folder against it as any device will."""
    files = sorted(path for path in draft.root.rglob("*") if path.is_file())
    records = {
        path.relative_to(draft.root).as_posix(): FileRecord(sha256_of(path), path.stat().st_size)
        for path in files
    }
    sealed = dataclasses.replace(draft, files=records)
    index = sealed.to_index()
    write_text(draft.root / INDEX, index, durable=False)
    write_text(draft.root / INDEX_HASH, index_hash_text(index.encode()), durable=False)
    Bundle.open(draft.root)


@contextlib.contextmanager
def _step(log: Log, what: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    log(f"{what} ({time.perf_counter() - started:.1f} s)")
