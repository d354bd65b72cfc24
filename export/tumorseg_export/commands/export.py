"""`tumorseg export`: a run or a foreign checkpoint -> a sealed bundle."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tumorseg_export.bundle.sign import load_private_key
from tumorseg_export.commands.sign import ask_passphrase
from tumorseg_export.engine.tensorrt_build import CAPABILITIES, PROFILE, RtxOptions
from tumorseg_export.references.calibration_images import CALIBRATION
from tumorseg_export.references.golden_images import GOLDEN
from tumorseg_export.targets.registry import DEFAULT, choose
from tumorseg_export.targets.validate_parity import worst_figures
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.cli.options import RUN, Existing, Options, command, given, out_option
from tumorseg_runtime.cli.terminal import say_text
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.paths import require
from tumorseg_runtime.core.records import Format
from tumorseg_runtime.device.engines import Profile

if TYPE_CHECKING:
    from tumorseg_export.bundle.export import Refuse

MAX_NOTES = 65536  # bytes
OPTION = Format("JSON value", "give a number, a list, true, false, null, or a word", error=InputError)


@dataclass(frozen=True)
class BundleOptions(Options):
    """What makes a bundle of any targets; from arch to option only for a foreign checkpoint, None: as the
    file says."""

    checkpoint: Path
    out: Path
    golden: int
    calibration: int
    compute_capability: tuple[int, ...]
    batch: str
    arch: str | None
    encoder: str | None
    classes: str | None
    size: str | None
    mean: str | None
    std: str | None
    rule: str | None
    threshold: float | None
    entry: str | None
    option: tuple[str, ...]
    images: str | None
    notes: Path | None
    sign: Path | None


@dataclass(frozen=True)
class ExportOptions(BundleOptions):
    """Of `tumorseg export`."""

    targets: str


@command(
    ExportOptions,
    example="tumorseg export runs/breast --out bundles/breast",
    sections={
        "Proof": ("images", "golden", "calibration"),
        "TensorRT-RTX": ("compute_capability", "batch"),
        "Foreign checkpoint": (
            *("arch", "encoder", "classes", "rule", "size", "mean", "std", "threshold", "entry", "option"),
        ),
    },
)
@click.argument(
    "checkpoint",
    type=Existing("a run or a checkpoint", RUN, "config.json"),
)
@out_option(required=True, help="Folder of the bundle.")
@click.option("--targets", default=",".join(DEFAULT), show_default=True, help="Targets, separated by commas.")
@click.option(
    "--golden", default=GOLDEN, show_default=True, help="Golden images that go into the bundle; 3 or more."
)
@click.option(
    "--calibration",
    default=CALIBRATION,
    show_default=True,
    type=click.IntRange(min=0),
    help="Most images beside these to fit FP16 and INT8 and to prove with; they stay out of the bundle.",
)
@click.option(
    "--compute-capability",
    type=int,
    multiple=True,
    default=CAPABILITIES,
    show_default=True,
    help="For tensorrt-rtx, 89 for 8.9; may be given several times, one engine serves all.",
)
@click.option(
    "--batch",
    default=f"{PROFILE.smallest},{PROFILE.tuned},{PROFILE.largest}",
    show_default=True,
    help="For tensorrt-rtx: smallest, tuned and largest batch.",
)
@click.option("--arch", help="One of smp's, such as unet, where the file does not say.")
@click.option("--encoder", help="smp's name, such as resnet34, where the file does not say.")
@click.option("--classes", help="A name for each output, with commas between.  [one class: tumour]")
@click.option("--size", help="Input in pixels, 512 or HEIGHTxWIDTH.  [default: 512]")
@click.option("--mean", help="Per channel, of 0..1, with commas.  [3 channels: the encoder's own]")
@click.option("--std", help="Like --mean.")
@click.option(
    "--rule",
    type=click.Choice(["sigmoid", "softmax"]),
    help="How several classes become masks: sigmoid, each by its own probability, or softmax, the "
    "largest probability, with one class named background.",
)
@click.option("--threshold", type=float, help="Probability from which a pixel is tumour.  [default: 0.5]")
@click.option("--entry", help="Which network, where a file holds several; the message lists them.")
@click.option(
    "--option",
    multiple=True,
    metavar="NAME=VALUE",
    help="An argument of smp's class that the weights do not show; may be given several times.",
)
@click.option(
    "--images",
    help="Images to prove with: a folder, or the word phantoms.  [default: those of the run's split]",
)
@click.option(
    "--notes",
    type=Existing("a Markdown file"),
    help="Markdown that ends the bundle's MODEL_CARD.md: sources, licences, results.",
)
@click.option("--sign", type=Existing("a private key"), help="Private key (PEM, Ed25519) that signs it.")
def export(options: ExportOptions) -> None:
    """Export CHECKPOINT to a sealed bundle: every artefact is proven against PyTorch, or it is refused.

    CHECKPOINT is a run, a folder of smp's save_pretrained, or a file with a state dict. The flags under
    "Foreign checkpoint" say what the last two leave open; one that contradicts the file is refused.

    A bundle that stands at --out is replaced when the new one is complete. Exit status 1 where an artefact
    decides other than PyTorch.
    """
    started = time.perf_counter()
    targets = [name.strip() for name in options.targets.split(",") if name.strip()]
    choose(targets)
    if "tensorrt-rtx" not in targets and (unused := {"--compute-capability", "--batch"} & {*given()}):
        raise InputError(f"{', '.join(unused)}: only for target tensorrt-rtx, which --targets lacks: add it")
    bundle = make_bundle(options, targets)
    result = summarise(bundle, time.perf_counter() - started)
    say_text(json.dumps(result, indent=2, ensure_ascii=False) if options.as_json else table(result))
    options.verdict(
        f"{result['bundle']}: {result['name']}, sealed as {result['sha256'][:16]}, {result['seconds']} s"
    )


def make_bundle(options: BundleOptions, targets: Sequence[str], refuse: Refuse | None = None) -> Bundle:
    """The bundle of the options' checkpoint at `options.out`; refuse, errors: as for `export_checkpoint`.

    Flags and paths are judged before torch is loaded.
    """
    if options.images not in (None, "phantoms"):
        require(Path(options.images), "a folder of images, or the word phantoms", "check --images")
    rtx = RtxOptions(options.compute_capability, Profile.parse(options.batch))
    key = None if options.sign is None else load_private_key(options.sign, ask_passphrase)
    notes = "" if options.notes is None else read_notes(options.notes)
    size, mean, std, classes = options.size, options.mean, options.std, options.classes
    height_width = None if size is None else parse_size(size)
    means = None if mean is None else parse_numbers("--mean", mean)
    stds = None if std is None else parse_numbers("--std", std)

    from tumorseg_export.bundle.export import export_checkpoint  # torch comes with these two
    from tumorseg_export.checkpoint.foreign import CheckpointOptions, open_checkpoint

    foreign = CheckpointOptions(
        architecture=options.arch,
        encoder=options.encoder,
        classes=None if classes is None else tuple(name.strip() for name in classes.split(",")),
        size=height_width,
        mean=means,
        std=stds,
        rule=options.rule,
        threshold=options.threshold,
        images=options.images,
        entry=options.entry,
        options=parse_options(options.option),
    )
    checkpoint = open_checkpoint(options.checkpoint, foreign, options.step)
    with options.progress("exporting") as tell:
        return export_checkpoint(
            checkpoint,
            options.out,
            targets=targets,
            golden=options.golden,
            calibration=options.calibration,
            rtx=rtx,
            key=key,
            notes=notes,
            log=options.step,
            refuse=refuse,
            tell=tell,
        )


def read_notes(path: Path) -> str:
    """The Markdown of `--notes`; raises InputError where it is not UTF-8 text of at most 64 kB."""
    data = path.read_bytes() if path.is_file() and path.stat().st_size <= MAX_NOTES else None
    try:
        if data is not None:
            return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    raise InputError(f"{path}: is not a UTF-8 text of at most {MAX_NOTES} bytes: give --notes Markdown")


def parse_size(text: str) -> tuple[int, int]:
    """'512' or '480x640' as (height, width); raises InputError. What fits a network, the contract knows."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"--size is '{text}', expected pixels such as 512, or HEIGHTxWIDTH such as 480x640")
    return int(parts[0]), int(parts[-1])


def parse_numbers(flag: str, text: str) -> tuple[float, ...]:
    """'0.5,0.5,0.5' as numbers; raises InputError."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{flag} is '{text}', expected numbers such as 0.485,0.456,0.406") from error


def parse_options(pairs: Sequence[str]) -> dict[str, Any] | None:
    """('encoder_depth=4', 'decoder_readout=add') as names and JSON values or else text; None of none."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (equals and name.isidentifier() and text) or name in options:
            raise InputError(
                f"--option is '{pair}', expected NAME=VALUE with each NAME once, such as encoder_depth=4"
            )
        try:
            options[name] = OPTION.parse(text, "--option")
        except InputError:
            options[name] = text
    return options or None


def summarise(bundle: Bundle, seconds: float) -> dict[str, Any]:
    """The result as plain values: the bundle's name and hash, and the figures of every artefact."""
    artefacts = []
    for artefact in bundle.artefacts:
        error, flipped, pixels = worst_figures(bundle, artefact) or (None, None, None)
        artefacts.append(
            {
                "file": artefact.file,
                "bytes": sum(bundle.files[name].bytes for name in artefact.files),
                "max_logit_error": error,
                "flipped_pixels": flipped,
                "pixels": pixels,
                "verdicts": [vars(verdict) for verdict in artefact.parity],
            }
        )
    return {
        "bundle": str(bundle.root),
        "name": bundle.name,
        "sha256": bundle.digest(),
        "golden_images": len(bundle.golden),
        "seconds": round(seconds, 1),
        "warning": bundle.model.get("warning"),
        "artefacts": artefacts,
    }


def table(result: dict[str, Any]) -> str:
    """The result for people: a line per artefact, what is unverified below it."""
    rows = [("artefact", "MB", "max logit error", "flipped pixels", "verdict")]
    notes = []
    for artefact in result["artefacts"]:
        passed = [f"{v['backend']} {v['device']}" for v in artefact["verdicts"] if v["status"] == "passed"]
        size = f"{artefact['bytes'] / 1e6:.1f}"
        if passed:
            flipped = f"{artefact['flipped_pixels']} of {artefact['pixels']}"
            error = f"{artefact['max_logit_error']:.2g}"
            rows.append((artefact["file"], size, error, flipped, f"passed: {', '.join(passed)}"))
        else:
            rows.append((artefact["file"], size, "-", "-", "unverified"))
        notes += [
            f"unverified: {artefact['file']} under {v['backend']} {v['device']}: {v['detail']}"
            for v in artefact["verdicts"]
            if v["status"] == "unverified"
        ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([line.rstrip() for line in lines] + notes)
