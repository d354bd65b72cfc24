"""`tumorseg data audit`: is evidence from this data worth anything?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click

from tumorseg_runtime.cli.options import Existing, command, out_option
from tumorseg_runtime.cli.terminal import say_text
from tumorseg_runtime.core.files import make_folder, write_text
from tumorseg_train.commands.dataset_options import FIELDS, DatasetOptions, dataset_options
from tumorseg_train.data.audit import Audit, audit_data
from tumorseg_train.data.audit_report import audit_page
from tumorseg_train.data.checks import KINDS, MEANING, in_few_lines


@dataclass(frozen=True)
class AuditOptions(DatasetOptions):
    """Of `tumorseg data audit`."""

    folder: Path
    split: Path | None
    out: Path | None


@command(
    AuditOptions,
    example="tumorseg data audit data --split data/split.json --out build/audit.html",
    sections={"Dataset": FIELDS},
)
@click.argument("folder", metavar="DIR", type=Existing("a folder of images"))
@dataset_options
@click.option(
    "--split", type=Existing("a split.json"),
    help="A split.json: is one patient, one block of slices or one scene in two of its parts?",
)  # fmt: skip
@out_option(help="Write the report with pictures, one HTML file.")
def audit(options: AuditOptions) -> None:
    """Read all images and masks under DIR, compare all images, and say what is wrong.

    The exit status is 1 if evidence from this data is worthless: unreadable files, masks that are missing,
    empty, inverted or of another size, one scene in two classes, or a split with one group on two sides.
    Nothing under DIR is changed.
    """
    with options.progress("reading images and masks") as tell:
        found = audit_data(options.folder, options.split, options.declared(options.folder), tell)
    out = options.out
    if out:
        make_folder(out.parent)
        write_text(out, audit_page(found))
    report = json.dumps(found.to_dict(), indent=2, ensure_ascii=False)
    say_text(report if options.as_json else describe(found))
    if out:
        options.log(f"report: {out}")
    reasons = found.worthless()
    sound = "no fault that spoils results"
    options.verdict(f"{found.root}: " + (f"WORTHLESS for {len(reasons)} reason(s)" if reasons else sound))
    click.get_current_context().exit(1 if reasons else 0)


def describe(audit: Audit) -> str:
    """The findings for people, a line each."""
    lines = [f"{audit.root}: {len(audit.samples)} images, {len(audit.facts)} of them sound"]
    for kind in KINDS:
        problems = [problem for problem in audit.problems if problem.kind == kind]
        lines.append(f"{len(problems)} {kind}: {MEANING[kind]}")
        lines += [f"  {text}" for text in in_few_lines(problems)]
    clusters = audit.clusters()
    lines.append(f"{sum(map(len, clusters))} images in {len(clusters)} clusters of near-duplicates")
    lines.append(f"{sum(pair.same_bytes for pair in audit.pairs)} pairs with the same bytes")
    conflicts = [pair for pair in audit.pairs if pair.conflicting]
    lines.append(f"{len(conflicts)} pairs of one scene in two classes")
    lines += [f"  {pair.first} and {pair.second}: similarity {pair.similarity:.2f}" for pair in conflicts]
    lines.append(f"{len(audit.coloured())} images with colour among gray ones")
    if border := audit.at_the_border():
        lines.append(f"{len(border)} masks fill half of the border and more, as is declared (inverted?)")
    lines.append(f"{len(audit.several_masks())} images with several masks, which are OR-ed")
    if audit.split:
        across = sum(pair.across for pair in audit.pairs)
        lines.append(
            f"{audit.split.file}: {len(audit.split.leaks)} groups and {across} near-duplicates across it"
        )
        lines += [f"  not in the split: {image}" for image in audit.split.unlisted]
    lines += [f"WORTHLESS: {reason}" for reason in audit.worthless()]
    return "\n".join(lines)
