"""`tumorseg parity`: does every artefact of a bundle decide what PyTorch decided?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tumorseg_benchmarks.parity.findings import score_bundle, write_certificate
from tumorseg_benchmarks.reports.ci import to_annotations, to_junit
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
from tumorseg_runtime.core.errors import InputError, ParityError
from tumorseg_runtime.core.files import make_folder, write_text

if TYPE_CHECKING:
    pass

SHOWN = 3  # breaches in the error message


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--run",
    "run_folder",
    type=click.Path(path_type=Path),
    help="Run that the bundle was made from: also compare with PyTorch itself on images of its split.",
)
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
@click.option(
    "--out",
    default=Path("build/parity"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for parity.json and parity.md.",
)
@click.option(
    "--device-folder",
    type=click.Path(path_type=Path),
    help="Where engines of this device lie [default: beside the bundle, else the user's cache].",
)
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
@click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML to this file.")
@click.option("--annotations", is_flag=True, help="Print a GitHub ::error line for each breach.")
@click.option("--json", "as_json", is_flag=True, help="Print parity.json instead of the table.")
def parity(
    bundle: Path,
    run_folder: Path | None,
    part: str,
    limit: int,
    out: Path,
    device_folder: Path | None,
    thinnest: int,
    layer_diff: bool,
    certificate: bool,
    junit: Path | None,
    annotations: bool,
    as_json: bool,
) -> None:
    """Compare every artefact of BUNDLE, under every backend of this machine, with PyTorch.

    From the bytes of files to tensors, logits, masks and Dice. Without --run only golden vectors and golden
    images are judged, which needs no PyTorch. What cannot run here is listed as unverified. The exit status
    is 1 where an artefact breaks its budget.
    """
    if annotations and as_json:
        raise InputError("--annotations and --json write to the same output, expected one: drop the other")
    opened = Bundle.open(bundle)
    run = open_run(run_folder)
    before = load_average()
    findings = score_bundle(
        opened,
        run,
        part,
        limit,
        thinnest=thinnest,
        layer_diff=layer_diff,
        device_folder=device_folder,
        progress=lambda line: click.echo(f"{line} ...", err=True),
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
        out, "parity", values, parity_markdown(rows, values) + further_sections(findings, markdown=True)
    )
    if certificate:
        path = write_certificate(opened, findings, run, device_folder, to_json)
        click.echo(f"certificate of this device: {path}", err=True)
    if junit:
        make_folder(junit.parent)
        write_text(junit, to_junit(findings))
    text = parity_text(rows, values) + further_sections(findings, markdown=False)
    click.echo(to_json(values) if as_json else text, nl=False)
    click.echo(f"report: {out}/parity.md, {out}/parity.json", err=True)
    for line in to_annotations(findings) if annotations else ():
        click.echo(line)
    if breaches := findings.breaches:
        first = "; ".join(breaches[:SHOWN])
        more = f"; {len(breaches) - SHOWN} more" if len(breaches) > SHOWN else ""
        layer = "" if layer_diff or run is None else ", or look for the layer with --layer-diff"
        raise ParityError(
            f"{bundle}: {len(breaches)} breaches of parity, expected none: {first}{more}: "
            f"do not use what is named refused in {out}/parity.md; export it again{layer}"
        )
