"""`tumorseg deploy`: every form that a machine can use, and the fastest of those that pass parity."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click

from tumorseg_benchmarks.latency.bench import run_bench
from tumorseg_benchmarks.latency.choice import BATCH, WON, Budgets, choose
from tumorseg_benchmarks.latency.latency import MIN_ROUNDS, TimingPlan
from tumorseg_benchmarks.latency.rows import BenchRow
from tumorseg_benchmarks.variants.candidates import sort_out
from tumorseg_benchmarks.variants.inputs import golden_inputs
from tumorseg_benchmarks.variants.machine import machine_facts, set_threads, usable_cores
from tumorseg_benchmarks.variants.places import PLACES, Place
from tumorseg_benchmarks.variants.variants import BUILT, VARIANTS, Variant
from tumorseg_export.commands.export import BundleOptions, export, make_bundle
from tumorseg_export.targets.int8_acceptance import SlowError
from tumorseg_export.targets.registry import TARGETS
from tumorseg_export.targets.validate_parity import BreachError, require_validators
from tumorseg_runtime.backends import MASK_BACKENDS, why_unavailable
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.cli.options import command
from tumorseg_runtime.cli.terminal import say_text
from tumorseg_runtime.core.errors import (
    BackendError,
    CheckFailedError,
    InputError,
    ParityError,
    TumorsegError,
)
from tumorseg_runtime.device.driver import why_no_driver

WINNER, PASSED, REFUSED, UNVERIFIED = "winner", "passed", "refused", "unverified"
MAX_IMAGES = 8  # golden images that the rounds go through in turn
Note = Callable[[str, TumorsegError], None]


@dataclass(frozen=True)
class DeployOptions(BundleOptions):
    """Of `tumorseg deploy`. rounds: None for as many as fit into a minute. threads: None for all cores."""

    place: str
    threads: int | None
    rounds: int | None


@dataclass(frozen=True)
class Outcome:
    """What became of one target, or of one variant of what was exported.

    status: 'winner', 'passed', 'refused' (it decides otherwise, or could not be made) or 'unverified' (it
    cannot run here). reason: three words at most. detail: the whole of it. median_ms: of one image, None for
    what was not timed.
    """

    name: str
    status: str
    reason: str
    detail: str
    median_ms: float | None = None


@command(
    DeployOptions,
    example="tumorseg deploy runs/breast --out bundles/breast --for cpu",
    sections={**export.sections, "Timing": ("threads", "rounds")},
)
@click.option(
    "--for",
    "place",
    type=click.Choice(list(PLACES)),
    default="here",
    show_default=True,
    help="Kind of machine that shall serve.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of one inference [all cores].")
@click.option(
    "--rounds", type=click.IntRange(min=MIN_ROUNDS), help="Timed rounds [what fits into a minute, 8 to 80]."
)
def deploy(options: DeployOptions) -> None:
    """Export CHECKPOINT to every target of a kind of machine, and name the fastest that passes parity.

    What fails is left out of the bundle and listed with the reason; `tumorseg export` makes the named
    targets or nothing. What cannot run here is unverified and never chosen. The flags are export's.

    Exit status 1 where nothing can be chosen: the bundle stands, unverified for that machine.
    """
    started, place = time.perf_counter(), PLACES[options.place]
    outcomes: list[Outcome] = []

    def note(name: str, error: TumorsegError) -> None:
        outcomes.append(outcome_of(name, error))
        options.log(f"{name}: {outcomes[-1].status}: {error}")

    bundle = make_bundle(options, possible(place, options.place == "here", note), note)
    elsewhere = place.why_not()
    threads = options.threads or usable_cores()
    variants = [one for one in VARIANTS if one.device in place.devices and not one.needs_run]
    if elsewhere:
        rows: list[BenchRow] = []
        outcomes += [Outcome(one.label, UNVERIFIED, "needs that machine", elsewhere) for one in variants]
    else:
        build_engines(bundle, place, options.log, note)
        there, left_out = sort_out(variants, bundle, None)
        outcomes += [
            Outcome(label, UNVERIFIED, in_three(reason), reason)
            for reason, labels in left_out.items()
            if reason != "not in the bundle"
            for label in labels
        ]
        rows = time_rows(bundle, there, threads, options)
    found, winner = judged(rows, bundle)
    outcomes = [*found, *masks_alone(bundle), *outcomes]
    result: dict[str, Any] = {
        "schema": 1,
        "bundle": str(options.out),
        "name": bundle.name,
        "sha256": bundle.digest(),
        "for": options.place,
        "threads": threads,
        "machine": machine_facts(),
        "winner": None if winner is None else asdict(winner),
        "python": [] if winner is None else python_lines(str(options.out), winner, options.threads),
        "outcomes": [asdict(one) for one in outcomes],
        "seconds": round(time.perf_counter() - started, 1),
    }
    say_text(json.dumps(result, indent=2, ensure_ascii=False) if options.as_json else table(result))
    if winner is None:
        raise CheckFailedError(
            f"{options.out}: sealed, and nothing of it could be chosen for '{options.place}' "
            f"({elsewhere or 'nothing passed'}): run tumorseg deploy, or bench, on such a machine"
        )
    options.verdict(f"{options.out}: {winner.label} is the fastest of {len(found)}, {result['seconds']} s")


deploy.params[:0] = [one for one in export.params if one.name not in ("targets", "as_json", "quiet")]


def possible(place: Place, here: bool, note: Note) -> list[str]:
    """The targets to try; one that cannot be made, or for this very machine not be used, is noted."""
    names = []
    for name in place.targets:
        target = TARGETS[name]
        reasons = [why_unavailable(*pair) for pair in target.validated_on]
        try:
            if here and all(reasons):
                raise BackendError(f"{reasons[0]}: no backend of target {name} runs here")
            require_validators(name, target)
        except BackendError as error:
            note(name, error)
        else:
            names.append(name)
    return names


def outcome_of(name: str, error: TumorsegError) -> Outcome:
    """The outcome of a target, or engine, that raised this."""
    match error:
        case BreachError():
            return Outcome(name, REFUSED, error.report.in_words, str(error))
        case SlowError():
            return Outcome(name, REFUSED, "not faster here", str(error))
        case ParityError():
            return Outcome(name, REFUSED, "differs from PyTorch", str(error))
        case CheckFailedError():
            return Outcome(name, REFUSED, "cannot be made", str(error))
        case InputError():
            return Outcome(name, REFUSED, "does not fit", str(error))
    return Outcome(name, UNVERIFIED, in_three(str(error)), str(error))


def in_three(reason: str) -> str:
    """Why something cannot run here, in three words."""
    driver = why_no_driver()
    return "no NVIDIA driver" if driver and driver in reason else "cannot run here"


def build_engines(bundle: Bundle, place: Place, log: Callable[[str], None], note: Note) -> None:
    """TensorRT engines for this device, into its folder beside the bundle, where it has such a GPU."""
    if "tensorrt" not in place.devices or why_no_driver() or why_unavailable("tensorrt", "cuda"):
        return
    from tumorseg_export.engine.build import DeviceOptions, build_for_device
    from tumorseg_runtime.device.cache import beside

    for precision in sorted({one.precision for one in bundle.artefacts if one.format == "onnx"}):
        try:
            build_for_device(bundle, beside(bundle), DeviceOptions(precision), log)
        except (BackendError, ParityError) as error:
            note(f"TensorRT engine {precision}", error)


def time_rows(
    bundle: Bundle, variants: Sequence[Variant], threads: int, options: DeployOptions
) -> list[BenchRow]:
    """One row per variant at batch 1, each held against PyTorch's logits of the golden images first."""
    truth = [one for one in VARIANTS if one.name == "onnx-fp32-onnxruntime-cpu" and one not in variants]
    set_threads(threads, torch_too=False)
    rows = run_bench(
        bundle,
        None,
        golden_inputs(bundle)[:MAX_IMAGES],
        [BATCH],
        threads,
        TimingPlan(rounds=options.rounds or MIN_ROUNDS),
        progress=options.log,
        variants=[*truth, *variants],  # what gives the right logits, also where it cannot be chosen
        open_rounds=options.rounds is None,
    )
    return [row for row in rows if row.variant not in truth]


def judged(rows: Sequence[BenchRow], bundle: Bundle) -> tuple[list[Outcome], Variant | None]:
    """The outcome of every row, the winner first, and the winner."""
    by_name = {row.variant.name: row for row in rows if row.role != "control"}
    outcomes: list[Outcome] = []
    winner = None
    for choice in choose(rows, bundle, {}, Budgets()):
        row = by_name[choice.name]
        if row.status == "measured":
            won, median = choice.status == WON, row.stages["infer"].median
            winner = row.variant if won else winner
            times = median / outcomes[0].median_ms if outcomes and outcomes[0].median_ms else 1.0
            words = "fastest that passes" if won else f"{times:.2f}x the time"
            outcomes.append(Outcome(row.label, WINNER if won else PASSED, words, choice.reason, median))
        elif row.parity is not None:
            outcomes.append(Outcome(row.label, REFUSED, row.parity.in_words, row.reason))
        else:
            outcomes.append(Outcome(row.label, UNVERIFIED, "did not run", row.reason))
    return outcomes, winner


def masks_alone(bundle: Bundle) -> Iterator[Outcome]:
    """The deploy forms: proven, and not timed beside forms that give logits."""
    for artefact in bundle.artefacts:
        passed = [one for one in artefact.parity if one.status == PASSED and one.backend in MASK_BACKENDS]
        if passed:
            yield Outcome(artefact.file, PASSED, "not timed: masks", "for programs without this runtime")


def python_lines(root: str, winner: Variant, threads: int | None) -> list[str]:
    """Three lines that open the winner and segment an image."""
    named = f'backend="{winner.engine}", device="{winner.device}", precision="{winner.precision}"'
    more = f", threads={threads}" if threads and winner.format != BUILT else ""
    return [
        "from tumorseg_runtime import Segmenter",
        f"segmenter = Segmenter.open({root!r}, {named}{more})",
        'prediction = segmenter.predict("scan.png")',
    ]


def table(result: dict[str, Any]) -> str:
    """The result for people: a line per form, one per reason for what is unverified, the lines of Python."""
    rows = [("form", "verdict", "ms", "why")]
    unverified: dict[str, list[str]] = {}
    for one in result["outcomes"]:
        if one["status"] == UNVERIFIED:
            unverified.setdefault(one["reason"], []).append(one["name"])
            continue
        ms = "-" if one["median_ms"] is None else f"{one['median_ms']:.1f}"
        rows.append((one["name"], one["status"], ms, one["reason"]))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    notes = [f"unverified, {reason}: {', '.join(names)}" for reason, names in unverified.items()]
    return "\n".join(
        [*(line.rstrip() for line in lines), *notes, *([""] if result["python"] else []), *result["python"]]
    )
