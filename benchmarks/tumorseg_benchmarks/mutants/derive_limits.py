"""`python -m tumorseg_benchmarks.mutants.derive_limits [RUN...]`: what do right artefacts err by?

Without a run it trains three networks at two sizes on phantoms first. Each run is exported with nothing
refused, and every artefact that runs here is compared with PyTorch on all images of a part of its split. The
largest of each figure, by precision, is what `BUDGETS` must allow; how often the budget as it stands refuses
one of these right artefacts is its rate of false alarms.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from tumorseg_benchmarks.mutants.testbed import (
    CONTRACT,
    DEEPLAB,
    SEED,
    UNET,
    UNETPP,
    train_network,
    write_run,
)
from tumorseg_benchmarks.parity.parity import compare
from tumorseg_benchmarks.parity.references import ReferenceSet, split_reference
from tumorseg_benchmarks.reports.report import to_json
from tumorseg_benchmarks.variants.pytorch import PyTorchSession
from tumorseg_export.bundle.export import export_run
from tumorseg_export.targets.registry import TARGETS, choose
from tumorseg_runtime.backends import BACKENDS, open_session, why_unavailable
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.cli.main import one_line_errors
from tumorseg_runtime.cli.terminal import say, say_text
from tumorseg_runtime.core.files import make_folder, write_text
from tumorseg_runtime.core.session import LOGITS
from tumorseg_runtime.parity.budget import BUDGETS, Budget, decision_breaches, number_breaches
from tumorseg_runtime.parity.failures import Failures
from tumorseg_runtime.parity.report import ImageParity, ParityReport
from tumorseg_train.data.phantoms import write_phantoms
from tumorseg_train.data.split import make_manifest
from tumorseg_train.networks.run import Run

ANYTHING = Budget(relative_error=1e9, free_pixels=0)  # certificates are JSON, which has no infinity
THREADS = (None, 1)  # MNN's logits change with them
SIZES = ((64, 96), (128, 128))  # height, width
PHANTOMS, PASSES = 40, 8  # of each organ; over the training images
# Whose logits are judged by a budget alone, on every CPU.
TARGETS_TRIED = ",".join(
    name
    for name, target in TARGETS.items()
    if target.must_run and not target.judged and "precision" not in target.options
    if BACKENDS[target.validated_on[0][0]].output == LOGITS
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One right artefact under one backend. figures: the largest of any image, as `figures` names them.
    yardstick: what a grey level of noise flips in PyTorch. alarms: what the budget says against it."""

    run: str
    network: str
    artefact: str
    backend: str
    precision: str
    threads: int | None
    images: int
    failed: int
    figures: dict[str, float]
    yardstick: dict[str, Any]
    alarms: tuple[str, ...]


@contextlib.contextmanager
def nothing_refused() -> Iterator[dict[str, Budget]]:
    """`BUDGETS` allow anything as long as this holds; gives them as they were."""
    before = dict(BUDGETS)
    BUDGETS.update(dict.fromkeys(BUDGETS, ANYTHING))
    try:
        yield before
    finally:
        BUDGETS.update(before)


def figures(report: ParityReport, free: int) -> dict[str, float]:
    """The largest of every figure that a budget limits; those of decisions in pixels of the network, and of
    images with more than the free pixels flipped alone."""
    images = report.images
    found = [one for image in images for one in (image.decisions, image.at_image) if one]
    moved = [one for one in found if one.flipped - one.event_px > free * one.wide**2]
    network = [image.decisions for image in images if image.decisions]
    return {
        "relative_error": max(image.relative_error for image in images),
        "mean_error": max(image.mean_error for image in images) / report.scale,
        "1 - cosine": max(1 - image.cosine for image in images if image.cosine is not None),
        "flips_per_border": max(
            ((one.flipped - one.event_px) / (one.border or 1) / one.wide for one in moved), default=0.0
        ),
        "flipped_share": max(
            (one.flipped / one.pixels for one in found if one.flipped > free * one.wide**2), default=0.0
        ),
        "hd95_px": max((one.hd95_px / one.wide for one in moved), default=0.0),
        "flips_per_border_in_all": sum(one.flipped for one in network)
        / (sum(one.border for one in network) or 1),
        "flipped": sum(one.flipped for one in network),
        "events": sum(len(one.events) for one in network),
        "outside": sum(one.outside for one in found),
    }


def judged(report: ParityReport, budget: Budget) -> ParityReport:
    """The same figures under a budget."""

    def again(image: ImageParity) -> ImageParity:
        numbers = number_breaches(
            image.relative_error, image.mean_error / report.scale, image.max_error, image.cosine, budget
        )
        decisions = [decision_breaches(one, budget) for one in (image.decisions, image.at_image) if one]
        lines = [line for both in decisions for part in both for line in part]
        kept = [line for line in image.breaches if line not in lines]
        return dataclasses.replace(image, breaches=tuple(dict.fromkeys((*kept, *numbers, *lines))))

    return dataclasses.replace(report, budget=budget, images=tuple(again(image) for image in report.images))


def trained(folder: Path) -> Iterator[Path]:
    """Runs of the mutants' three networks at every one of `SIZES`, trained on phantoms; those that lie there
    already stay."""
    data = folder / "data"
    if not data.exists():
        write_phantoms(data, brain=PHANTOMS, breast=PHANTOMS, seed=SEED)
    manifest = make_manifest(data, SEED)
    for height, width in SIZES:
        for name in (UNET, UNETPP, DEEPLAB):
            root = folder / f"{name}-{height}x{width}"
            if not root.exists():
                say(f"training {root.name}", err=True)
                contract = dataclasses.replace(CONTRACT, height=height, width=width)
                model, _ = train_network(name, manifest, PASSES, contract)
                write_run(name, model, manifest, root, PASSES, contract)
            yield root


def rows_of(run: Run, part: str, limit: int, bundle: Bundle, budgets: dict[str, Budget]) -> Iterator[Row]:
    """Every artefact with logits under every backend that runs here, on the CPU."""
    pytorch = PyTorchSession(run.model(), "cpu")
    reference = split_reference(run, pytorch, part, limit).with_yardstick(pytorch, run.contract)
    for artefact in bundle.artefacts:
        for backend, spec in BACKENDS.items():
            if artefact.format not in spec.formats or spec.output != LOGITS:
                continue
            if "cpu" not in spec.devices or why_unavailable(backend, "cpu"):
                continue
            for threads in THREADS if backend.startswith("mnn") else (None,):
                session = open_session(bundle, backend=backend, precision=artefact.precision, threads=threads)
                yield _row(run, artefact.file, artefact.precision, session, threads, reference, budgets)


def _row(
    run: Run, file: str, precision: str, session: Any, threads: int | None, reference: ReferenceSet,
    budgets: dict[str, Budget],
) -> Row:  # fmt: skip
    report = judged(compare(session, file, reference, run.contract), budgets[precision])
    failures: Failures = report.failures
    assert reference.yardstick is not None
    return Row(
        str(run.root.name), f"{run.architecture} {run.contract.height}x{run.contract.width}", file,
        session.info.backend, precision, threads, failures.images, failures.failed,
        figures(report, budgets[precision].free_pixels), reference.yardstick.to_dict(), report.breaches,
    )  # fmt: skip


def derived(rows: list[Row]) -> dict[str, Any]:
    """By precision the largest of each figure and what the budget allows; false alarms over all."""
    result: dict[str, Any] = {}
    for precision in sorted({row.precision for row in rows}):
        mine = [row for row in rows if row.precision == precision]
        largest = {name: max(row.figures[name] for row in mine) for name in mine[0].figures}
        result[precision] = {"artefacts": len(mine), "largest": largest}
    alarms = Failures(len(rows), sum(bool(row.alarms) for row in rows))
    return {"by_precision": result, "false_alarms": alarms.to_dict()}


@click.command()
@click.argument("runs", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--split", "part", default="test", show_default=True, help="Part of the split.")
@click.option("--limit", default=0, show_default=True, help="Images of each run; 0 takes all.")
@click.option("--targets", default=TARGETS_TRIED, show_default=True, help="What is exported.")
@click.option(
    "--out", default=Path("build/limits"), show_default=True, type=click.Path(path_type=Path),
    help="Folder for limits.json.",
)  # fmt: skip
def main(runs: tuple[Path, ...], part: str, limit: int, targets: str, out: Path) -> None:
    """Measure what right artefacts of these runs err by, and how often the budget refuses one of them."""
    with one_line_errors():
        rows: list[Row] = []
        names = list(choose(targets.split(",")))
        roots = runs or tuple(trained(out / "networks"))
        for root in roots:
            run = Run.open(root)
            with nothing_refused() as budgets, tempfile.TemporaryDirectory() as folder:
                say(f"{root}: exporting {', '.join(names)}", err=True)
                bundle = export_run(run, Path(folder) / "bundle", targets=names)
                for row in rows_of(run, part, limit, bundle, budgets):
                    rows.append(row)
                    say_text(json.dumps(dataclasses.asdict(row)), err=True)
        make_folder(out)
        values = {"rows": [dataclasses.asdict(row) for row in rows], **derived(rows)}
        write_text(out / "limits.json", to_json(values))
        say_text(to_json(derived(rows)))


if __name__ == "__main__":
    main()
