"""`tumorseg data`: declare and check the images, write the split, audit them; draw phantoms."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tumorseg_runtime.cli.options import PATH, Options, SuggestingGroup, command, epilog, out_option
from tumorseg_runtime.cli.terminal import say, say_text
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.files import make_folder
from tumorseg_runtime.core.text import printable
from tumorseg_train.commands.data_audit import audit
from tumorseg_train.commands.data_import import import_data
from tumorseg_train.commands.dataset_options import FIELDS, DatasetOptions, dataset_options
from tumorseg_train.data.checks import at_the_border, examine, in_few_lines
from tumorseg_train.data.datasets import find_samples
from tumorseg_train.data.grouping import KINDS, MEANING
from tumorseg_train.data.phantoms import BRAIN, BREAST, NOTE, PHANTOMS_FLAG, ensure_data, write_phantoms
from tumorseg_train.data.split import GROUPED, PARTS, RANDOM, Manifest, split_samples
from tumorseg_train.layouts.known import unread_folders


@click.group(cls=SuggestingGroup, epilog=epilog("tumorseg data prepare data"))
def data() -> None:
    """Declare, check, split and audit images, or draw phantoms. Layouts and sources: docs/data.md."""


@dataclass(frozen=True)
class PrepareOptions(DatasetOptions):
    """Of `tumorseg data prepare`. folds: 0 for one split. out: None for DIR/split.json."""

    folder: Path
    seed: int
    method: str
    folds: int
    fold: int
    phantoms: bool
    out: Path | None


@command(
    PrepareOptions,
    example="tumorseg data prepare data --seed 1",
    sections={"Dataset": FIELDS},
    needs={"fold": "folds"},
)
@click.argument("folder", metavar="DIR", type=PATH)
@dataset_options
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the split.")
@click.option(
    "--split",
    "method",
    default=GROUPED,
    show_default=True,
    type=click.Choice((GROUPED, RANDOM)),
    help="grouped keeps patients, neighbouring slices and near-duplicates in one part; random does not, "
    "to measure what that does to the scores.",
)
@click.option(
    "--folds",
    default=0,
    type=click.IntRange(min=0),
    help="Split into so many equal folds, 3 or more [default: 70/20/10 instead].",
)
@click.option(
    "--fold",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="With --folds: this fold is the test part, the next one validation.",
)
@click.option(
    PHANTOMS_FLAG, is_flag=True, help="Draw phantoms into DIR if it does not exist; DIR `data` needs no flag."
)
@out_option(help="The split's file [default: DIR/split.json].")
def prepare(options: PrepareOptions) -> None:
    """Check every image and mask under DIR and write the split into training, validation and test.

    What is read: as DIR/dataset.toml declares it (`tumorseg data import`), else the flags under Dataset, else
    the layouts of docs/data.md. Problems are listed for all files at once, and no split is written; the exit
    status is then 2. Phantoms are drawn where DIR is `data` or --phantoms is given, and DIR does not exist.
    """
    folder = options.folder
    with options.progress("drawing phantoms") as tell:
        drawn = ensure_data(folder, asked=options.phantoms, tell=tell)
    if drawn:
        options.log(f"{folder} did not exist: phantoms were drawn into it (docs/data.md)")
    declared = options.declared(folder)
    samples = find_samples(folder, declared)
    with options.progress("reading images and masks") as tell:
        facts, found = examine(folder, samples, declared, tell)
    problems = [problem.text for problem in found]
    if problems:
        if options.as_json:
            say_text(json.dumps({"root": str(folder), "problems": problems}, indent=2, ensure_ascii=False))
        else:
            for line in in_few_lines(found):
                say(line, err=True)
        raise InputError(
            f"{folder}: {len(problems)} problem(s) in {len(samples)} images, expected none: "
            "see the list, no split was written"
        )
    manifest = split_samples(
        folder, options.seed, samples, facts, method=options.method, folds=options.folds, fold=options.fold
    )
    path = options.out or folder / "split.json"
    make_folder(path.parent)
    manifest.write(path)
    report = {
        "root": str(folder),
        "phantoms": (folder / NOTE).is_file(),
        "split": str(path),
        "split_sha256": manifest.digest(),
        "method": manifest.method,
        "folds": manifest.folds,
        "fold": manifest.fold,
        "groups": group_counts(manifest),
        "groups_across_parts": len(manifest.straddling()),
        "counts": counts(manifest),
        "copies": manifest.copies(),
        "masks_at_the_border": at_the_border(facts),
        "unread_folders": unread_folders(folder, declared),
    }
    say_text(json.dumps(report, indent=2, ensure_ascii=False) if options.as_json else describe(report))
    images = "phantoms, drawn images" if report["phantoms"] else "images"
    options.verdict(
        f"{len(samples)} {images}: all files are sound; split: {path} (SHA-256 {manifest.digest()[:12]})"
    )


@dataclass(frozen=True)
class PhantomsOptions(Options):
    """Of `tumorseg data phantoms`. brain, breast: how many."""

    folder: Path
    brain: int
    breast: int
    seed: int


@command(PhantomsOptions, example="tumorseg data phantoms data --brain 60 --breast 60")
@click.argument("folder", metavar="DIR", type=PATH)
@click.option(
    "--brain", default=BRAIN, show_default=True, type=click.IntRange(min=0), help="MRI-like slices."
)
@click.option(
    "--breast", default=BREAST, show_default=True, type=click.IntRange(min=0), help="Ultrasound-like frames."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of every drawing.")
def phantoms(options: PhantomsOptions) -> None:
    """Draw phantoms into DIR, in the layouts of the real datasets. DIR must be new or empty."""
    folder, brain, breast, seed = options.folder, options.brain, options.breast, options.seed
    with options.progress("drawing phantoms") as tell:
        write_phantoms(folder, brain=brain, breast=breast, seed=seed, tell=tell)
    if options.as_json:
        values = {"root": str(folder), "brain": brain, "breast": breast, "seed": seed}
        say_text(json.dumps(values, indent=2))
    options.verdict(f"{folder}: drew {brain} brain and {breast} breast phantoms with seed {seed}")


for one in (prepare, audit, phantoms):
    data.add_command(one)
data.add_command(import_data, "import")


def counts(manifest: Manifest) -> list[dict[str, Any]]:
    """Images of each organ and class: in all, with a tumour, and in each part."""
    rows = []
    for organ, label in sorted({(item.organ, item.label) for item in manifest.items}):
        items = [item for item in manifest.items if (item.organ, item.label) == (organ, label)]
        part = Counter(item.part for item in items)
        tumours = sum(item.tumour_px > 0 for item in items)
        row = {"organ": organ, "label": label, "images": len(items), "with_tumour": tumours}
        rows.append({**row, **{name: part[name] for name in PARTS}})
    return rows


def group_counts(manifest: Manifest) -> list[dict[str, Any]]:
    """Groups of each kind: how many, and how many images they hold."""
    rows = []
    for kind in KINDS:
        names = [item.group for item in manifest.items if item.group_kind == kind]
        rows.append({"kind": kind, "meaning": MEANING[kind], "groups": len(set(names)), "images": len(names)})
    return [row for row in rows if row["images"]]


def describe(report: dict[str, Any]) -> str:
    """The report for people: a table and what else should be known."""
    columns = ("images", "with_tumour", *PARTS)
    head = f"{'organ':<8}{'class':<11}" + "".join(f"{name.replace('_', ' '):>13}" for name in columns)
    rows = [*report["counts"]]
    rows.append({"organ": "all", "label": "", **{name: sum(row[name] for row in rows) for name in columns}})
    lines = [head]
    lines += [
        f"{row['organ']:<8}{row['label']:<11}" + "".join(f"{row[name]:>13}" for name in columns)
        for row in rows
    ]
    lines += [
        f"{row['groups']} groups of {row['images']} images: {row['meaning']}" for row in report["groups"]
    ]
    if report["groups_across_parts"]:
        lines.append(
            f"{report['groups_across_parts']} groups are in more than one part, as in any {report['method']} "
            "split: scores on its test part are too high"
        )
    if report["phantoms"]:
        lines.append(f"phantoms: drawn images, of no patient ({report['root']}/{NOTE})")
    lines += [f"same bytes, kept in one part: {', '.join(images)}" for images in report["copies"]]
    if border := report["masks_at_the_border"]:
        names = ", ".join(border[:3]) + (", ..." if len(border) > 3 else "")
        lines.append(
            f"{len(border)} masks fill half of the border and more, as is declared (inverted?): {names}"
        )
    if report["unread_folders"]:
        lines.append(f"not read, no known layout: {', '.join(report['unread_folders'])}")
    return "\n".join(map(printable, lines))
