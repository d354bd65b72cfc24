"""`tumorseg data import`: propose the `dataset.toml` of a folder, show three pairs, and write it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tumorseg_runtime.cli.options import Existing, command
from tumorseg_runtime.cli.terminal import say_text
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.files import write_text
from tumorseg_runtime.images.nifti.names import is_volume
from tumorseg_train.commands.dataset_options import DatasetOptions, dataset_options
from tumorseg_train.data.datasets import Sample, find_samples, read_pair
from tumorseg_train.layouts.declaration import FILE, Declaration
from tumorseg_train.layouts.pairing import find_pairs
from tumorseg_train.layouts.proposal import SPLITS, propose

SHOWN = 3


@dataclass(frozen=True)
class ImportOptions(DatasetOptions):
    """Of `tumorseg data import`."""

    folder: Path
    yes: bool


@command(
    ImportOptions,
    example="tumorseg data import scans --organ breast --yes",
    sections={
        "What is declared": (
            "organ", "images", "masks", "pairing", "tumour", "soft_threshold", "label", "patient",
        ),
    },
)  # fmt: skip
@click.argument("folder", metavar="DIR", type=Existing("a folder of images"))
@dataset_options
@click.option("--yes", is_flag=True, help="Write it without asking.")
def import_data(options: ImportOptions) -> None:
    """Propose DIR/dataset.toml from the names in DIR: which files are images, which are their masks.

    Three pairs are shown, then it is asked for. Flags stand in place of what the names say. The organ is not
    guessed from pixels: where no folder names it, --organ is needed.
    """
    root = options.folder
    path = root / FILE
    if path.is_file():
        raise InputError(f"{path}: is there already, expected none: change it, or remove it and try again")
    declared = propose(root, options.given())
    text = "# what `tumorseg data` reads here (docs/data.md)\n" + "\n".join(d.to_toml() for d in declared)
    samples = find_samples(root, declared)
    pairs = [show(root, sample) for sample in evenly(samples)]
    report = {
        "root": str(root),
        "file": str(path),
        "toml": text,
        "images": len(samples),
        "without_mask": sum(not sample.masks for sample in samples),
        "classes": dict(Counter(f"{sample.organ} {sample.label}" for sample in samples)),
        "patients": len({sample.patient for sample in samples if sample.patient}),
        "pairs": pairs,
        "notes": notes(root, declared),
    }
    if options.as_json:
        say_text(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        say_text(describe(report))
    if not options.yes:
        click.confirm(f"Write {path}?", abort=True, err=True)
    write_text(path, text)
    options.verdict(f"{path}: {len(samples)} images; next: tumorseg data prepare {root}")


def evenly(samples: list[Sample]) -> list[Sample]:
    """Three of the samples with a mask, evenly spaced; raises InputError where there is none."""
    masked = [sample for sample in samples if sample.masks and sample.compared]
    if not masked:
        raise InputError(f"{len(samples)} images and no mask by this pairing: correct --masks or --pairing")
    count = min(SHOWN, len(masked))
    return [masked[(2 * n + 1) * len(masked) // (2 * count)] for n in range(count)]


def show(root: Path, sample: Sample) -> dict[str, Any]:
    """One pair, read as it is declared; raises InputError for a mask that its rule does not fit."""
    image, tumour = read_pair(root, sample)
    return {
        "image": sample.image,
        "masks": list(sample.masks),
        "organ": sample.organ,
        "label": sample.label,
        "patient": sample.patient,
        "height": image.shape[0],
        "width": image.shape[1],
        "tumour_px": int(tumour.sum()),
    }


def notes(root: Path, declared: tuple[Declaration, ...]) -> list[str]:
    """What should be known before saying yes."""
    lines = []
    for one in declared:
        found = find_pairs(root, one)
        if found.bare():
            lines.append(f"{len(found.bare())} of {len(found.pairs)} images in {one.images} have no mask")
        if found.orphans:
            lines.append(f"{len(found.orphans)} masks such as {found.orphans[0].name} have no image")
        if found.strays:
            lines.append(f"{len(found.strays)} files such as {found.strays[0].name} fit neither name")
        if volumes := [pair.image for pair in found.pairs if is_volume(pair.image)]:
            lines.append(f"{len(volumes)} volumes: each slice is an image, and those of one stay together")
        if found.series:
            lines.append(f"{len(found.series)} other series such as {found.series[0].name} are not read")
        folders = {
            part.casefold() for pair in found.pairs for part in pair.image.relative_to(root).parts[:-1]
        }
        if pooled := sorted(folders & set(SPLITS)):
            lines.append(f"the folders {', '.join(pooled)} are one dataset here: `prepare` splits anew")
        if one.neighbours:
            lines.append(
                "names are numbers: neighbours stay together, in case they are slices of one patient"
            )
    return lines


def describe(report: dict[str, Any]) -> str:
    """The proposal for people."""
    classes = ", ".join(f"{count} {name}" for name, count in report["classes"].items())
    patients = f", {report['patients']} patients" if report["patients"] else ""
    lines = [f"proposed {report['file']}:", *(f"  {line}" for line in report["toml"].splitlines())]
    lines.append(f"{report['images']} images: {classes}{patients}")
    for pair in report["pairs"]:
        share = pair["tumour_px"] / (pair["height"] * pair["width"])
        size = f"{pair['width']}x{pair['height']}, tumour {pair['tumour_px']} px ({share:.1%})"
        lines.append(f"  {pair['image']} + {', '.join(pair['masks'])}: {size}")
    return "\n".join(lines + report["notes"])
