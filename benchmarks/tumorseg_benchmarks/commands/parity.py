"""`tumorseg parity`: does every artefact of a bundle decide what PyTorch decided?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tumorseg_benchmarks.parity.findings import score_bundle, write_device_certificate
from tumorseg_benchmarks.reports.ci import to_annotations, to_junit
from tumorseg_benchmarks.reports.parity_page import parity_page
from tumorseg_benchmarks.reports.parity_report import further_sections
from tumorseg_benchmarks.reports.report import (
    SCHEMA,
    parity_markdown,
    parity_text,
    to_json,
    variant_facts,
    write_report,
)
from tumorseg_benchmarks.variants.candidates import open_run
from tumorseg_benchmarks.variants.machine import load_average, machine_facts
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.cli.options import (
    PATH,
    Options,
    bundle_argument,
    command,
    device_folder_option,
    out_option,
    run_option,
)
from tumorseg_runtime.cli.terminal import say, say_text
from tumorseg_runtime.core.errors import InputError, ParityError
from tumorseg_runtime.core.files import make_folder, write_text

PAGE = "parity.html"
SHOWN = 3  # breaches in the error message


@dataclass(frozen=True)
class ParityOptions(Options):
    """Of `tumorseg parity`. part, limit, thinnest: of the run's split; limit 0: all of it."""

    bundle: Path
    run_folder: Path | None
    part: str
    limit: int
    out: Path
    device_folder: Path | None
    thinnest: int
    layer_diff: bool
    certificate: bool
    junit: Path | None
    annotations: bool


@command(
    ParityOptions,
    example="tumorseg parity bundles/breast --run runs/breast --limit 20",
    sections={
        "Images": ("run_folder", "part", "limit", "thinnest"),
        "Reports": ("out", "certificate", "junit", "annotations"),
    },
    needs=dict.fromkeys(("part", "limit", "thinnest", "layer_diff"), "run_folder"),
)
@bundle_argument
@run_option(help="also compare with PyTorch itself on images of its split.")
@click.option(
    "--split",
    "part",
    default="test",
    show_default=True,
    type=click.Choice(["train", "val", "test"]),
    help="Part of the run's split.",
)
@click.option(
    "--limit",
    default=0,
    type=click.IntRange(min=0),
    help="At most so many images of the split [default: all].",
)
@out_option(default=Path("build/parity"), help="Folder for parity.html, parity.md and parity.json.")
@device_folder_option()
@click.option(
    "--thinnest",
    default=0,
    type=click.IntRange(min=0),
    help="Search the split for so many images with the thinnest margins, and compare them first.",
)
@click.option("--layer-diff", is_flag=True, help="Also find the layer of each ONNX file that diverges first.")
@click.option(
    "--certificate/--no-certificate",
    default=True,
    show_default=True,
    help="Leave parity.json in the device folder.",
)
@click.option("--junit", type=PATH, help="Write JUnit XML to this file.")
@click.option("--annotations", is_flag=True, help="Print a GitHub ::error line for each breach.")
def parity(options: ParityOptions) -> None:
    """Compare every artefact of BUNDLE, under every backend of this machine, with PyTorch.

    From the bytes of files to tensors, logits, masks and Dice. Without --run only golden vectors and golden
    images are judged, which needs no PyTorch. What cannot run here is listed as unverified. The exit status
    is 1 where an artefact breaks its budget. The page parity.html needs no network.
    """
    if options.annotations and options.as_json:
        raise InputError("--annotations and --json write to the same output, expected one: drop the other")
    opened = Bundle.open(options.bundle)
    run = open_run(options.run_folder)
    before = load_average()
    with options.progress("comparing with PyTorch") as share:
        findings = score_bundle(
            opened,
            run,
            options.part,
            options.limit,
            thinnest=options.thinnest,
            layer_diff=options.layer_diff,
            device_folder=options.device_folder,
            progress=lambda line: options.log(f"{line} ..."),
            share=share,
        )
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "parity",
        "machine": machine_facts(),
        "load_average": {"before": before, "after": load_average()},
        **variant_facts(opened, run),
        **findings.to_dict(),
    }
    rows = findings.rows
    write_report(
        options.out,
        "parity",
        values,
        parity_markdown(rows, values) + further_sections(findings, markdown=True),
    )
    write_text(options.out / PAGE, parity_page(findings, values))
    if options.certificate:
        path = write_device_certificate(opened, findings, run, options.device_folder, to_json)
        options.log(f"certificate of this device: {path}")
    if options.junit:
        make_folder(options.junit.parent)
        write_text(options.junit, to_junit(findings))
    text = parity_text(rows, values) + further_sections(findings, markdown=False)
    say_text(to_json(values) if options.as_json else text, nl=False)
    options.log(f"report: {options.out / PAGE}, and parity.md and parity.json beside it")
    for line in to_annotations(findings) if options.annotations else ():
        say(line)
    if breaches := findings.breaches:
        first = "; ".join(breaches[:SHOWN])
        more = f"; {len(breaches) - SHOWN} more" if len(breaches) > SHOWN else ""
        layer = "" if options.layer_diff or run is None else ", or look for the layer with --layer-diff"
        raise ParityError(
            f"{options.bundle}: {len(breaches)} breaches of parity, expected none: {first}{more}: "
            f"do not use what is named refused in {options.out}/parity.md; export it again{layer}"
        )
    unverified = sum(row.status == "unverified" for row in rows)
    options.verdict(
        f"{options.bundle}: parity holds: {len(rows) - unverified} passed, {unverified} unverified"
    )
