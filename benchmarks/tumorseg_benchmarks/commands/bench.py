"""`tumorseg bench`: how fast is every form of the network on this machine?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tumorseg_benchmarks.bench import BenchRow, run_bench
from tumorseg_benchmarks.commands.parity import open_run
from tumorseg_benchmarks.inputs import EncodedImage, file_inputs, golden_inputs, split_inputs
from tumorseg_benchmarks.latency import MIN_ROUNDS, Plan
from tumorseg_benchmarks.machine import load_average, machine_facts, usable_cores
from tumorseg_benchmarks.parity import check_kinship
from tumorseg_benchmarks.ranking import BATCH, make_ranking_folder, ranking_entries, ranking_line
from tumorseg_benchmarks.report import (
    SCHEMA,
    bench_markdown,
    bench_text,
    subject_facts,
    to_json,
    write_report,
)
from tumorseg_runtime.bundle import Bundle
from tumorseg_runtime.device_folder import RANKING, write_ranking
from tumorseg_runtime.errors import InputError

if TYPE_CHECKING:
    from tumorseg_train.run import Run

MAX_IMAGES = 8  # rounds go through them in turn; each is also compared with PyTorch before anything is timed


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--run",
    "run_folder",
    type=click.Path(path_type=Path),
    help="Run that the bundle was made from: PyTorch is timed too and is the reference.",
)
@click.option("--batches", default="1,4", show_default=True, help="Batch sizes, separated by commas.")
@click.option("--rounds", default=MIN_ROUNDS, show_default=True, help="Timed rounds of each batch size.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads of each subject [default: all cores]."
)
@click.option(
    "--images",
    multiple=True,
    type=click.Path(path_type=Path),
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
@click.option("--seed", default=0, show_default=True, help="Of the order of the subjects in each round.")
@click.option(
    "--out",
    default=Path("build/bench"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for bench.json and bench.md.",
)
@click.option(
    "--rank",
    "rank_too",
    is_flag=True,
    help="Also write ranking.json into the device folder: backend 'auto' then takes what was fastest here.",
)
@click.option(
    "--device-folder",
    type=click.Path(path_type=Path),
    help="Where this device keeps its engines and its ranking [default: the one that is there, else "
    "<BUNDLE>.device beside the bundle].",
)
@click.option("--json", "as_json", is_flag=True, help="Print bench.json instead of the tables.")
def bench(
    bundle: Path,
    run_folder: Path | None,
    batches: str,
    rounds: int,
    threads: int | None,
    images: tuple[Path, ...],
    max_images: int,
    budget_seconds: float | None,
    seed: int,
    out: Path,
    rank_too: bool,
    device_folder: Path | None,
    as_json: bool,
) -> None:
    """Time BUNDLE under every backend of this machine, against PyTorch where a run is given.

    All subjects run the same real images in interleaved rounds, with the same number of threads. What breaks
    parity is refused; what cannot run here is listed with the reason. Without --run the reference is
    ONNX FP32.
    """
    sizes = parse_batches(batches)
    if rank_too and BATCH not in sizes:
        raise InputError(f"batches is '{batches}', expected {BATCH} among them for --rank: add it")
    plan = Plan(rounds=rounds, seed=seed, budget_s=budget_seconds)
    opened = Bundle.open(bundle)
    run = open_run(run_folder)
    if run is not None:
        check_kinship(opened, run)
    inputs = choose_inputs(opened, run, images, max_images)
    count = threads or usable_cores()
    ranking_folder = make_ranking_folder(opened, device_folder) if rank_too else None
    set_threads(count, torch_too=run is not None)
    before = load_average()
    rows = run_bench(
        opened,
        run,
        inputs,
        sizes,
        count,
        plan,
        progress=lambda line: click.echo(line, err=True),
        device_folder=device_folder,
    )
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "bench",
        "machine": machine_facts(),
        "load_average": {"before": before, "after": load_average()},
        **subject_facts(opened, run),
        "images": [image.to_dict() for image in inputs],
        "plan": {
            "batches": sizes,
            "rounds": rounds,
            "threads": count,
            "seed": seed,
            "settle_seconds": plan.settle_s,
            "budget_seconds": budget_seconds,
        },
        "reference": reference_facts(rows, run),
        "rows": [row.to_dict() for row in rows],
    }
    write_report(out, "bench", values, bench_markdown(rows, values))
    click.echo(to_json(values) if as_json else bench_text(rows, values), nl=False)
    click.echo(f"report: {out}/bench.md, {out}/bench.json", err=True)
    if ranking_folder is not None:
        entries = ranking_entries(rows, count)
        write_ranking(ranking_folder, opened, entries)
        click.echo(f"ranking: {ranking_folder / RANKING}: {ranking_line(entries)}", err=True)


def parse_batches(text: str) -> list[int]:
    """'1,4' -> [1, 4]; raises InputError for anything but different positive numbers."""
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1 or len(set(sizes)) != len(sizes):
        raise InputError(f"batches is '{text}', expected different positive numbers such as 1,4")
    return sizes


def choose_inputs(bundle: Bundle, run: Run | None, files: tuple[Path, ...], limit: int) -> list[EncodedImage]:
    """The images to time: those that were named, else test images of the run, else the golden images."""
    if files:
        return file_inputs(files, limit)
    return golden_inputs(bundle)[:limit] if run is None else split_inputs(run, "test", limit)


def set_threads(count: int, *, torch_too: bool) -> None:
    """CPU threads of OpenCV and PyTorch in this process; the backends are told when they are opened."""
    import cv2

    cv2.setNumThreads(count)
    if torch_too:
        from tumorseg_benchmarks.pytorch import set_threads as set_torch_threads

        set_torch_threads(count)


def reference_facts(rows: Sequence[BenchRow], run: Run | None) -> dict[str, str]:
    """In words: what the speed-ups are against, and where the right logits come from."""
    names = dict.fromkeys(row.label for row in rows if row.role == "reference")
    if run is None:
        return {
            "timed_against": " and ".join(names) + " (no run was given, so PyTorch was not timed)",
            "logits_from": "PyTorch's at export, on the golden images; on other images ONNX FP32's",
        }
    return {
        "timed_against": " and ".join(names),
        "logits_from": "PyTorch's FP32 on the CPU, on the timed images",
    }
