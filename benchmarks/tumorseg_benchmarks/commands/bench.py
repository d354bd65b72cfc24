"""`tumorseg bench`: how fast is every form of the network on this machine?"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tumorseg_benchmarks.commands.bench_rate import OF_RATE, bench_rate
from tumorseg_benchmarks.latency.bench import run_bench
from tumorseg_benchmarks.latency.choice import BATCH, UNFIT, WON, Budgets, choose
from tumorseg_benchmarks.latency.cold_start import start_cold
from tumorseg_benchmarks.latency.cpu_frequency import cpu_frequency_state
from tumorseg_benchmarks.latency.latency import MIN_ROUNDS, TimingPlan
from tumorseg_benchmarks.latency.ranking import make_ranking_folder, ranking_entries, ranking_line
from tumorseg_benchmarks.latency.roofline import Peak, Work, count_work, measure_peak
from tumorseg_benchmarks.latency.rows import BenchRow, reference_facts
from tumorseg_benchmarks.parity.parity import check_provenance
from tumorseg_benchmarks.reports.bench_report import bench_markdown, bench_text
from tumorseg_benchmarks.reports.html_report import PAGE, foreign_page, read_report, report_page
from tumorseg_benchmarks.reports.report import SCHEMA, to_json, variant_facts, write_report
from tumorseg_benchmarks.variants.candidates import open_run, sort_out
from tumorseg_benchmarks.variants.inputs import EncodedImage, file_inputs, golden_inputs, split_inputs
from tumorseg_benchmarks.variants.machine import load_average, machine_facts, set_threads, usable_cores
from tumorseg_benchmarks.variants.third_party_baselines import THIRD_PARTY_BASELINES
from tumorseg_benchmarks.variants.variants import VARIANTS
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.cli.options import (
    Existing,
    Options,
    bundle_argument,
    command,
    device_folder_option,
    given,
    out_option,
    run_option,
)
from tumorseg_runtime.cli.terminal import say_text
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.files import write_text
from tumorseg_runtime.device.cache import RANKING, write_ranking

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run

MAX_IMAGES = 8  # rounds go through them in turn; each is also compared with PyTorch before anything is timed


@dataclasses.dataclass(frozen=True)
class BenchOptions(Options):
    """Of `tumorseg bench`. rounds: None for as many as fit into a minute. max_*: budgets, None for none."""

    bundle: Path
    run_folder: Path | None
    batches: str
    rounds: int | None
    threads_text: str | None
    third_party: bool
    cold_start: bool
    max_latency_ms: float | None
    max_memory_mb: float | None
    max_size_mb: float | None
    parity_file: Path | None
    images: tuple[Path, ...]
    max_images: int
    budget_seconds: float | None
    seed: int
    out: Path
    rank_too: bool
    rate: float | None
    seconds: float
    backend: str
    precision: str | None
    device_folder: Path | None


@command(
    BenchOptions,
    example="tumorseg bench bundles/breast --batches 1,4 --threads 2",
    sections={
        "Timing": ("batches", "rounds", "threads_text", "budget_seconds", "cold_start", "seed"),
        "Images": ("images", "max_images"),
        "Rate": ("rate", "seconds", "backend", "precision"),
        "Budgets": ("max_latency_ms", "max_memory_mb", "max_size_mb"),
        "Compared with": ("run_folder", "third_party", "parity_file"),
    },
    needs={"third_party": "run_folder", "seconds": "rate", "backend": "rate", "precision": "rate"},
)
@bundle_argument
@run_option(help="PyTorch is timed too and is the reference.")
@click.option("--batches", default="1,4", show_default=True, help="Batch sizes, separated by commas.")
@click.option(
    "--rounds",
    type=int,
    help="Timed rounds of each batch size, 8 or more [default: what fits into a minute, 8 to 80].",
)
@click.option(
    "--threads", "threads_text", help="CPU threads, or several such as 1,2 one after the other [all cores]."
)
@click.option(
    "--third-party", is_flag=True, help="Also time PyTorch's other modes and stock runtimes; needs --run."
)
@click.option(
    "--cold/--no-cold",
    "cold_start",
    default=True,
    show_default=True,
    help="Also start each variant three times in a process of its own: cold start, load, peak memory.",
)
@click.option("--max-latency-ms", type=float, help="Budget: median of infer for one image.")
@click.option("--max-memory-mb", type=float, help="Budget: peak memory in a process of its own.")
@click.option("--max-size-mb", type=float, help="Budget: size of the artefact's files.")
@click.option(
    "--parity",
    "parity_file",
    type=Existing("a parity.json"),
    help="parity.json of this bundle: its figures go onto the page, too.",
)
@click.option(
    "--images",
    multiple=True,
    type=Existing("an image or a folder of images"),
    help="Image or folder of images, may be repeated [default: the run's test images, else the golden ones].",
)
@click.option(
    "--max-images", default=MAX_IMAGES, show_default=True, type=click.IntRange(min=1), help="Images at most."
)
@click.option(
    "--budget-seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="Begin no round after so many seconds; a batch size that cannot have eight rounds is not timed.",
)
@click.option("--seed", default=0, show_default=True, help="Of the order of the variants in each round.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="In place of latencies: frames per second through stream, drops, and the highest rate that holds.",
)
@click.option("--seconds", default=60.0, show_default=True, help="Of the frames at --rate.")
@click.option("--backend", default="auto", show_default=True, help="What --rate runs on.")
@click.option("--precision", help="Which artefact --rate runs [default: fp32; any for auto].")
@out_option(default=Path("build/bench"), help="Folder for bench.html, bench.md and bench.json.")
@click.option(
    "--rank",
    "rank_too",
    is_flag=True,
    help="Also write ranking.json into the device folder: backend 'auto' then takes what was fastest here.",
)
@device_folder_option(
    help="Where this device keeps its engines and its ranking [default: the one that is there, else "
    "<BUNDLE>.device beside the bundle].",
)
def bench(options: BenchOptions) -> None:
    """Time BUNDLE under every backend of this machine, against PyTorch where a run is given.

    All variants run the same real images in interleaved rounds, with the same number of threads. What breaks
    parity is refused; what cannot run here is named with the reason. Without --run the reference is
    ONNX FP32. The page bench.html needs no network.
    """
    sizes = parse_numbers("batches", options.batches)
    counts = parse_numbers("threads", options.threads_text) if options.threads_text else [usable_cores()]
    if options.rate is not None:
        if unused := given(*OF_RATE):
            raise InputError(f"--rate times no latencies, got also {', '.join(unused)}: leave them out")
        if len(counts) > 1:
            raise InputError(f"threads is '{options.threads_text}', expected one number for --rate")
        images = options.images, options.max_images
        how = options.backend, options.precision, counts[0]
        bench_rate(options, options.bundle, options.rate, options.seconds, *how, *images, options.out)
        return
    if options.rank_too and BATCH not in sizes:
        raise InputError(f"batches is '{options.batches}', expected {BATCH} among them for --rank: add it")
    budgets = Budgets(options.max_latency_ms, options.max_memory_mb, options.max_size_mb)
    if options.max_memory_mb is not None and not options.cold_start:
        raise InputError("--max-memory-mb was given with --no-cold, expected only one of them")
    plan = TimingPlan(
        rounds=MIN_ROUNDS if options.rounds is None else options.rounds,
        seed=options.seed,
        budget_s=options.budget_seconds,
    )
    opened = Bundle.open(options.bundle)
    parity = read_report(options.parity_file, "parity", opened) if options.parity_file else None
    run = open_run(options.run_folder)
    if run is not None:
        check_provenance(opened, run)
    inputs = choose_inputs(opened, run, options.images, options.max_images)
    ranking_folder = make_ranking_folder(opened, options.device_folder) if options.rank_too else None
    variants, left_out = sort_out(
        (*VARIANTS, *(THIRD_PARTY_BASELINES if options.third_party else ())), opened, run
    )
    before, frequency = load_average(), cpu_frequency_state()
    work = count_work(opened)
    rows: list[BenchRow] = []
    peaks: list[Peak] = []
    worst: dict[str, dict[str, Any]] = {}
    for count in counts:
        set_threads(count, torch_too=run is not None)
        if isinstance(work, Work):
            peaks.append(measure_peak(count))
        rows += run_bench(
            opened,
            run,
            inputs,
            sizes,
            count,
            plan,
            progress=options.log,
            variants=variants,
            device_folder=options.device_folder,
            open_rounds=options.rounds is None,
            worst=worst,
        )
    if isinstance(work, Work) and any(row.variant.group == "gpu" and row.stages for row in rows):
        peaks += peaks_of_gpu(options.log)
    last = counts[-1]
    cold_starts, failed = (
        start_cold(opened, run, rows, last, options.device_folder, options.log)
        if options.cold_start
        else ({}, {})
    )
    choices = choose([row for row in rows if row.threads == last], opened, cold_starts, budgets)
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "bench",
        "machine": machine_facts(),
        "load_average": {"before": before, "after": load_average()},
        "cpu_frequency": {"before": frequency, "after": cpu_frequency_state()},
        **variant_facts(opened, run),
        "images": [image.to_dict() for image in inputs],
        "plan": {
            "batches": sizes,
            "rounds": options.rounds,
            "threads": counts,
            "seed": options.seed,
            "settle_seconds": plan.settle_s,
            "budget_seconds": options.budget_seconds,
        },
        "reference": reference_facts(rows, run is not None),
        "left_out": left_out,
        "work": dataclasses.asdict(work) if isinstance(work, Work) else {"reason": work},
        "peaks": [dataclasses.asdict(peak) for peak in peaks],
        "cold_start": {name: dataclasses.asdict(one) for name, one in cold_starts.items()},
        "cold_start_failed": failed,
        "budgets": dataclasses.asdict(budgets),
        "choice": [dataclasses.asdict(one) for one in choices],
        "worst": worst,
        "rows": [row.to_dict() for row in rows],
    }
    write_report(options.out, "bench", values, bench_markdown(rows, values))
    if parity is None or options.parity_file is None:
        page = report_page([values])
    else:
        page = foreign_page([values, parity], [options.parity_file])
    write_text(options.out / PAGE, page)
    say_text(to_json(values) if options.as_json else bench_text(rows, values), nl=False)
    options.log(f"report: {(options.out / PAGE).resolve()}, and bench.md and bench.json beside it")
    if ranking_folder is not None:
        unfit = {one.name: one.reason for one in choices if one.status == UNFIT}
        entries = ranking_entries([row for row in rows if row.threads == last], last, unfit)
        write_ranking(ranking_folder, opened, entries)
        options.log(f"ranking: {ranking_folder / RANKING}: {ranking_line(entries)}")
    timed = sum(row.status == "measured" for row in rows)
    fastest = next((one.label for one in choices if one.status == WON), "none that fits")
    options.verdict(f"{options.bundle}: {timed} of {len(rows)} rows timed, to serve: {fastest}")


def peaks_of_gpu(log: Callable[[str], None]) -> list[Peak]:
    """Measured with torch, which need not be there."""
    if importlib.util.find_spec("torch") is None:
        log("the GPU's roofline is not measured: torch is not installed")
        return []
    from tumorseg_benchmarks.latency.gpu_roofline import measure_gpu_peaks

    return measure_gpu_peaks()


def parse_numbers(name: str, text: str) -> list[int]:
    """'1,4' -> [1, 4]; raises InputError for anything but different positive numbers."""
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1 or len(set(sizes)) != len(sizes):
        raise InputError(f"{name} is '{text}', expected different positive numbers such as 1,4")
    return sizes


def choose_inputs(bundle: Bundle, run: Run | None, files: tuple[Path, ...], limit: int) -> list[EncodedImage]:
    """The images to time: those that were named, else test images of the run, else the golden images."""
    if files:
        return file_inputs(files, limit)
    return golden_inputs(bundle)[:limit] if run is None else split_inputs(run, "test", limit)
