"""`tumorseg predict`: images, DICOM files and volumes -> masks, overlays and JSON, however many."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path

import click

import tumorseg_runtime
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.cli.options import Options, bundle_argument, command, on_terminal, out_option, spoken
from tumorseg_runtime.cli.terminal import say, say_text
from tumorseg_runtime.core.errors import BackendError, CheckFailedError, InputError
from tumorseg_runtime.core.files import locked, make_folder
from tumorseg_runtime.core.paths import require
from tumorseg_runtime.core.progress import Tell
from tumorseg_runtime.core.stop import resumable
from tumorseg_runtime.images import decoder_lines
from tumorseg_runtime.images.dicom.lookup_tables import Span
from tumorseg_runtime.images.dicom.segmentation import Maker
from tumorseg_runtime.images.dicom.series import series_spans
from tumorseg_runtime.images.frame import WindowedFile
from tumorseg_runtime.images.frames import is_dicom
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.outputs.descriptions import describe_flag
from tumorseg_runtime.outputs.image_files import check_apart, list_images, unique_names
from tumorseg_runtime.outputs.image_results import SERIES_FOLDER, Outputs, SegmentationResults, SeriesResults
from tumorseg_runtime.outputs.object_store import PathOrUri, StoredFile, check_stores, list_stored
from tumorseg_runtime.outputs.results_log import FILE, SUMMARY, ResultsLog, earlier_names
from tumorseg_runtime.outputs.table import write_table
from tumorseg_runtime.outputs.writer import Written, write_results

File = Path | StoredFile
FOLDERS = ("masks", "overlays", "probabilities")
LOCK = ".predict.lock"
IMAGE, SERIES = "image", "series"  # whose values a window is made of
LOCAL, RAY = "local", "ray"
FAULTS_IN_A_ROW = 3  # of the backend, after which the rest is not tried


@dataclasses.dataclass(frozen=True)
class PredictOptions(Options):
    """Of `tumorseg predict`; threads, timeout: None for the backend's own and none. workers: None for what
    the cluster has room for."""

    bundle: Path
    files: tuple[Path | str, ...]
    out: Path
    backend: str
    device: str | None
    precision: str | None
    threads: int | None
    batch: int
    preprocess: str | None
    timeout: float | None
    overlays: bool
    probabilities: bool
    dicom_seg: bool
    series_seg: bool
    window: str
    resume: bool
    engine: str
    workers: int | None


@command(
    PredictOptions,
    example="tumorseg predict bundles/breast scans/ --out masks",
    sections={
        "Backend": ("backend", "device", "precision", "threads", "batch", "preprocess", "timeout"),
        "Pictures": ("overlays", "probabilities", "dicom_seg", "series_seg", "window"),
        "Many machines": ("engine", "workers"),
    },
)
@bundle_argument
@click.argument("files", nargs=-1, required=True, type=PathOrUri(path_type=Path, readable=False))
@out_option(required=True, help="Folder for all outputs.")
@click.option(
    "--backend", default="onnxruntime", show_default=True, help="A name, or auto; never substituted."
)
@click.option("--device", help="cpu, cuda, ...; never substituted.  [default: cpu; any for auto]")
@click.option(
    "--precision", help="fp32, fp16, bf16 or int8: which artefact runs.  [default: fp32; any for auto]"
)
@click.option("--threads", type=int, help="CPU threads of one inference [default: the backend's].")
@click.option("--batch", default=1, show_default=True, help="Most images in one inference.")
@click.option(
    "--preprocess",
    help="Where images are resized, cpu or cuda; same bits.  [default: where the session runs]",
)
@click.option("--timeout", type=float, help="Most seconds for one inference [default: no limit].")
@click.option("--overlays/--no-overlays", default=True, show_default=True, help="Pictures for people.")
@click.option("--probabilities", is_flag=True, help="Also maps as 16-bit PNG: 65535 is probability 1.")
@click.option(
    "--dicom-seg", is_flag=True, help="Also NAME.seg.dcm beside the masks; holds patient data of the image."
)
@click.option(
    "--series-seg", is_flag=True, help="Also series/UID.seg.dcm, one object of all FILES of a DICOM series."
)
@click.option(
    "--window",
    type=click.Choice((IMAGE, SERIES)),
    default=IMAGE,
    show_default=True,
    help="Of DICOM frames that say none: from the values of each, or of all FILES of its series.",
)
@click.option("--resume", is_flag=True, help="Skip files that an earlier run into OUT has completed.")
@click.option(
    "--engine",
    type=click.Choice((LOCAL, RAY)),
    default=LOCAL,
    show_default=True,
    help="Where: in this process, or on a Ray cluster (RAY_ADDRESS, else this machine; extra ray).",
)
@click.option("--workers", type=click.IntRange(min=1), help="With ray: most actors [default: one a core].")
def predict(options: PredictOptions) -> None:
    """Segment FILES (images, DICOM files, NIfTI volumes, or folders of them) with BUNDLE.

    With --engine ray FILES may be object stores, too (s3://bucket/folder); results are those of one machine,
    bit for bit, and predictions.parquet holds them as a table (docs/scale.md).

    Writes masks/ (images' own sizes, 255 where a tumour was found), overlays/, predictions.jsonl (a line per
    image, written as it goes) and, at the end, predictions.json. Of a volume (.nii, .nii.gz) the mask is one
    of the same grid, the overlay its slice with most tumour, and lesions are measured in mm3. Masks in
    folders are skipped, and so are DICOM files that are no images (SR, PR, SEG, RTDOSE, KO, ...); one that is
    named itself is refused. With --dicom-seg, so is a file that is no DICOM image with patient and study; one
    object holds all frames of a file. With --series-seg one holds those of all images of a series. A file
    that cannot be read or is refused is listed at the end and does not stop the rest; the exit status is
    then 1.
    """
    paths = find(options)
    bundle = Bundle.open(options.bundle)
    segmenter = Segmenter.open(
        bundle, backend=options.backend, device=options.device, precision=options.precision,
        threads=options.threads, batch_size=options.batch, preprocess=options.preprocess,
        logits=options.probabilities,
    )  # fmt: skip
    if options.probabilities and segmenter.gives_masks:
        raise InputError(
            f"{segmenter.info.backend} gives masks alone, --probabilities expects logits: choose another "
            "backend, or leave it out"
        )
    maker = Maker.of(bundle, tumorseg_runtime.__version__)
    if options.dicom_seg or options.series_seg:
        maker.check()
    whole = [path for path in paths if isinstance(path, Path)]
    series = SeriesResults(whole, maker, options.log) if options.series_seg else None
    objects = SegmentationResults(maker) if options.dicom_seg else None
    outputs = Outputs(options.out, options.overlays, options.probabilities, objects)
    settings = {
        "bundle": {"name": bundle.name, "sha256": bundle.digest()},
        "session": dataclasses.asdict(segmenter.info),
        "rule": segmenter.contract.rule,
        "threshold": segmenter.contract.threshold,
        "temperature": segmenter.contract.temperature,
        "window": options.window,
        "outputs": {
            "overlays": options.overlays,
            "probabilities": options.probabilities,
            "dicom_seg": options.dicom_seg,
        },
    }
    say_each = not (options.quiet or options.as_json or on_terminal())
    again = [argument for argument in sys.argv[1:] if argument != "--resume"]
    how = f"go on with what is left: {spoken(*again, '--resume')}"
    make_folder(options.out)
    with contextlib.ExitStack() as stack:
        stack.enter_context(decoder_lines.owned())
        stack.enter_context(locked(options.out / LOCK, options.out))
        stack.enter_context(resumable(lambda: how))
        earlier = earlier_names(options.out) if options.resume else {}
        names = dict(zip(map(str, paths), unique_names(paths, earlier, options.log), strict=True))
        stamps = {str(one): [*one.stamp] for one in paths if isinstance(one, StoredFile)}
        results_log = stack.enter_context(
            ResultsLog(options.out, settings, names, resume=options.resume, stamps=stamps)
        )
        todo = [path for path in paths if str(path) not in results_log.done]
        if len(todo) < len(paths):
            options.log(f"{len(paths) - len(todo)} of {len(paths)} files are done already")
        results = RUNS[options.engine](options, segmenter, todo, names, outputs, spans_of(options, paths))
        with contextlib.closing(results), options.progress("segmenting") as tell:
            follow(results, todo, results_log, tell, say_each=say_each)
        if series:
            series.write(results_log)
        if options.engine == RAY:
            write_table(results_log)
        report(results_log, paths, options)


def find(options: PredictOptions) -> list[File]:
    """The files and objects of a run; raises InputError."""
    files = tuple(one for one in options.files if isinstance(one, Path))
    uris = [one for one in options.files if not isinstance(one, Path)]
    if options.workers is not None and options.engine != RAY:
        raise InputError("--workers was given without --engine ray, where it does nothing: add it")
    check_stores(uris, ray=options.engine == RAY, series=options.window == SERIES or options.series_seg)
    check_apart(options.out, files, (*FOLDERS, *([SERIES_FOLDER] if options.series_seg else [])))
    if not uris and not any(map(os.path.exists, files)):
        require(files[0], "an image, a DICOM file, a NIfTI volume or a folder of them")
    images = list_images(files, dicom=True, log=options.log)
    return [*images, *(one for uri in uris for one in list_stored(uri, options.log))]


def spans_of(options: PredictOptions, paths: Sequence[File]) -> dict[Path, Span]:
    """The windows of series, where they are asked for."""
    if options.window != SERIES:
        return {}
    options.log(f"one window for each series: {len(paths)} files are read once before")
    return series_spans(path for path in paths if isinstance(path, Path) and is_dicom(path))


def run_here(
    options: PredictOptions, segmenter: Segmenter, todo: list[File], names: dict[str, str],
    outputs: Outputs, spans: dict[Path, Span],
) -> Generator[Written, None, None]:  # fmt: skip
    """Results of this process."""
    files = [path for path in todo if isinstance(path, Path)]  # all: `find` has looked
    read = [WindowedFile(path, spans[path]) if path in spans else path for path in files]
    taken = {name.casefold() for name in names.values()}
    results = segmenter.stream(read, batch_size=options.batch, timeout_s=options.timeout)
    with contextlib.closing(results):
        yield from write_results(results, files, [names[str(path)] for path in files], outputs, taken)


def run_on_ray(
    options: PredictOptions, segmenter: Segmenter, todo: list[File], names: dict[str, str],
    outputs: Outputs, spans: dict[Path, Span],
) -> Generator[Written, None, None]:  # fmt: skip
    """Results of a Ray cluster's workers; the segmenter of this process says what theirs must be."""
    from tumorseg_runtime.outputs.on_ray import results_on_ray  # zipfile, pickle: only who asks for it
    from tumorseg_runtime.outputs.worker import job_of, tasks_of

    opening = {
        "backend": options.backend, "device": options.device, "precision": options.precision,
        "threads": options.threads or 1, "batch_size": options.batch, "preprocess": options.preprocess,
        "logits": options.probabilities,
    }  # fmt: skip
    job = job_of(options.bundle, segmenter, outputs, opening, list(names.values()),
                 batch=options.batch, timeout=options.timeout)  # fmt: skip
    segmenter.close()
    tasks = tasks_of(todo, spans, [names[str(path)] for path in todo])
    return results_on_ray(job, tasks, options.workers, options.log)


RUNS = {LOCAL: run_here, RAY: run_on_ray}


def follow(
    results: Iterable[Written], todo: Sequence[object], results_log: ResultsLog, tell: Tell, *, say_each: bool
) -> None:
    """Log what has been written; raises BackendError where the backend fails again and again."""
    faults = 0
    for one in results:
        results_log.append(one.line)
        for warning in one.warnings:
            say(f"warning: {warning}", err=True)
        faults = faults + 1 if one.fault else 0
        if faults == FAULTS_IN_A_ROW:
            raise BackendError(
                f"{faults} files in a row failed, the rest was not tried: {one.fault} "
                "(when that is done, --resume goes on from here)"
            )
        if say_each and one.said:
            say(one.said)
        tell((one.index + 1) / len(todo))


def report(results_log: ResultsLog, paths: list[File], options: PredictOptions) -> None:
    """Summary and list of failed files; raises CheckFailedError if there are any."""
    results_log.write_summary()
    if options.as_json:
        with (results_log.out / SUMMARY).open(encoding="utf-8") as file:
            for piece in file:
                say_text(piece, nl=False)
    count, whole = (sum(1 for _ in lines) for lines in (results_log.images(), results_log.volumes()))
    counts = f"{count} images, {whole} volumes" if whole else f"{count} images"
    if flagged := sum(describe_flag(line) is not None for line in results_log.lines()):
        counts += f" ({flagged} flagged by the input guard)"
    options.verdict(f"{counts} -> {results_log.out}: masks/, {SUMMARY}, {FILE}")
    of_this_run = set(map(str, paths))
    lines = [line for line in results_log.failed() if line["file"] in of_this_run]
    for line in lines:
        say(f"error: {line['error']}", err=True)
    if lines:
        series = sum("series" in line for line in lines)
        raise CheckFailedError(
            f"{len(lines) - series} of {len(paths)} files could not be segmented"
            f"{f', {series} series have no object' if series else ''}: see above or {SUMMARY}"
        )
