"""All that `tumorseg parity` found, in one object: for the report, CI, and the device's certificate."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumorseg_benchmarks.parity.edge_cases import NAME as EDGE
from tumorseg_benchmarks.parity.edge_cases import edge_cases
from tumorseg_benchmarks.parity.fp16_reference import NAME as ROUNDED
from tumorseg_benchmarks.parity.layer_diff import LayerDiff, measure_layer_diff
from tumorseg_benchmarks.parity.parity import check_parity
from tumorseg_benchmarks.parity.preprocess_paths import REFUSED, VectorCheck, check_vectors
from tumorseg_benchmarks.parity.references import Margin
from tumorseg_benchmarks.parity.rows import CONFORMANCE, ParityRow
from tumorseg_benchmarks.variants.variants import VARIANTS, Variant
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.files import make_folder, write_text
from tumorseg_runtime.core.progress import Tell, parts, silent
from tumorseg_runtime.device.cache import beside, device_facts, find
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.reference import FOLDER
from tumorseg_runtime.parity.verify import folder_problems
from tumorseg_runtime.processing.preprocess import Preprocessor

if TYPE_CHECKING:
    from collections.abc import Callable

    from tumorseg_train.networks.run import Run

GOLDEN = ("golden", ROUNDED)  # sets that consist of the bundle's golden images
CERTIFICATE = "parity.json"
CERTIFICATE_SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class Findings:
    """vectors: bytes to tensor. rows: every artefact over every set. margins: the thinnest ones of the split,
    where they were searched. layer_diffs: per ONNX file, where it was asked for. folder_problems: of the
    device folder, one line each, as `verify` finds them."""

    vectors: tuple[VectorCheck, ...]
    rows: tuple[ParityRow, ...]
    margins: tuple[Margin, ...] = ()
    layer_diffs: tuple[LayerDiff, ...] = ()
    folder_problems: tuple[str, ...] = ()

    @property
    def breaches(self) -> tuple[str, ...]:
        """One line per breach, with the layer where the layer_diff was measured."""
        lines = list(self.folder_problems)
        lines += [
            f"preprocessing, {check.path}: {check.vector}: {check.reason}"
            for check in self.vectors
            if check.status == REFUSED
        ]
        for row in self.rows:
            lines += row.breaches
        if lines:
            lines += [f"layer_diff: {layer_diff.line}" for layer_diff in self.layer_diffs if layer_diff.first]
        return tuple(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "device_folder": list(self.folder_problems),
            "vectors": [check.to_dict() for check in self.vectors],
            "rows": [row.to_dict() for row in self.rows],
            "thinnest": [dataclasses.asdict(margin) for margin in self.margins],
            "layer_diff": [layer_diff.to_dict() for layer_diff in self.layer_diffs],
        }


def score_bundle(
    bundle: Bundle,
    run: Run | None,
    part: str,
    limit: int,
    *,
    thinnest: int = 0,
    layer_diff: bool = False,
    device_folder: Path | None = None,
    variants: Sequence[Variant] = VARIANTS,
    progress: Callable[[str], None] = lambda line: None,
    share: Tell = silent,
) -> Findings:
    """Everything: the device folder, golden vectors, then `check_parity`, then the layer_diff.

    Raises InputError where what needs a run is asked for without one, and as `check_parity`.
    """
    if run is None and (thinnest or layer_diff):
        asked = "--layer-diff" if layer_diff else "--thinnest"
        raise InputError(f"{asked} was given without a run, expected --run: PyTorch's network is there")
    folder = device_folder or find(bundle)
    problems = tuple(folder_problems(bundle, folder)) if folder is not None else ()
    progress("golden vectors of preprocessing")
    first, rest = parts(share, [1, 9])
    vectors = tuple(check_vectors())
    first(1.0)
    margins: list[Margin] = []
    rows = tuple(
        check_parity(
            bundle,
            run,
            part,
            limit,
            progress,
            variants,
            device_folder=device_folder,
            thinnest=thinnest,
            tell=margins.extend,
            share=rest,
        )
    )
    layer_diffs = tuple(_layer_diffs(bundle, run, rows, progress)) if run is not None and layer_diff else ()
    return Findings(vectors, rows, tuple(margins), layer_diffs, problems)


def _layer_diffs(
    bundle: Bundle, run: Run, rows: tuple[ParityRow, ...], progress: Callable[[str], None]
) -> Iterator[LayerDiff]:
    """The layer_diff of every ONNX file with logits, on the image where it does worst."""
    for artefact in bundle.artefacts:
        if artefact.format != "onnx":
            continue
        mine = [
            row
            for row in rows
            if row.report
            and row.status != "unverified"
            and row.images != CONFORMANCE
            and (row.variant.format, row.variant.precision) == ("onnx", artefact.precision)
        ]
        if not mine:
            continue
        worst = max(mine, key=_badness)
        assert worst.report is not None
        name = worst.report.worst.image
        progress(f"{artefact.file}: layer_diff of its layers on {name}")
        if worst.images == EDGE:
            pixels = next(image.pixels() for image, _ in edge_cases() if image.name == name)
        else:
            from tumorseg_train.data.datasets import read_pixels

            golden = bundle.root / FOLDER / f"{name}.png"
            pixels = read_pixels(golden if worst.images in GOLDEN else run.manifest().root / name)
        tensor = Preprocessor(bundle.contract)(pixels, name)
        yield measure_layer_diff(
            run.model(), bundle.contract, bundle.root / artefact.file, artefact.precision, name, tensor
        )


def _badness(row: ParityRow) -> tuple[int, float]:
    assert row.report is not None
    worst = row.report.worst
    return len(row.report.breaches), worst.relative_error if math.isfinite(worst.relative_error) else math.inf


def write_device_certificate(
    bundle: Bundle,
    findings: Findings,
    run: Run | None,
    device_folder: Path | None,
    to_json: Callable[..., str],
) -> Path:
    """Leave what this device has found out in the device folder; returns the file.

    schema, bundle (SHA-256 of bundle.json), device (as in `ranking.json`), budgets, images (name -> SHA-256
    of the file), passed, and vectors, rows and thinnest as in the report's parity.json. Raises InputError
    where the folder cannot be made.
    """
    folder = device_folder or find(bundle) or beside(bundle)
    make_folder(folder)
    values = {
        "schema": CERTIFICATE_SCHEMA,
        "bundle": bundle.digest(),
        "device": device_facts(),
        "budgets": {name: dataclasses.asdict(budget) for name, budget in BUDGETS.items()},
        "images": _image_hashes(bundle, findings, run),
        "passed": not findings.breaches,
        **findings.to_dict(),
    }
    path = folder / CERTIFICATE
    write_text(path, to_json(values))
    return path


def _image_hashes(bundle: Bundle, findings: Findings, run: Run | None) -> dict[str, str]:
    """SHA-256 of every file that was compared, as the bundle's or the split's seal has it."""
    hashes = {}
    known = {item.image: item.files[item.image] for item in run.manifest().items} if run else {}
    known |= {image.name: str(image.to_dict()["sha256"]) for image, _ in edge_cases()}
    for row in findings.rows:
        for image in row.report.images if row.report else ():
            if row.images == CONFORMANCE:
                continue  # made in code, with hashes of their own in golden_vectors.json
            if row.images in GOLDEN:
                hashes[image.image] = bundle.files[f"{FOLDER}/{image.image}.png"].sha256
            else:
                hashes[image.image] = known[image.image]
    return hashes
