"""`tumorseg export`: a run -> a sealed bundle."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from tumorseg_export.card import worst_figures
from tumorseg_export.golden_set import GOLDEN
from tumorseg_export.targets import DEFAULT
from tumorseg_export.tensorrt_build import CAPABILITIES, PROFILE, RtxOptions
from tumorseg_runtime.bundle import Bundle
from tumorseg_runtime.engine import Profile


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the bundle.")
@click.option("--targets", default=",".join(DEFAULT), show_default=True, help="Targets, with commas between.")
@click.option(
    "--golden", default=GOLDEN, show_default=True, help="Golden images that go into the bundle; 3 or more."
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
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, the steps on stderr.")
def export(
    run: Path,
    out: Path,
    targets: str,
    golden: int,
    compute_capability: tuple[int, ...],
    batch: str,
    as_json: bool,
) -> None:
    """Export RUN to a sealed bundle; every artefact is proven against PyTorch, or the bundle is refused.

    A bundle that stands at --out is replaced when the new one is complete. Exit status 1 where an artefact
    decides other than PyTorch.
    """
    from tumorseg_export.export import export_run  # torch comes with these two
    from tumorseg_train.run import Run

    started = time.perf_counter()
    rtx = RtxOptions(compute_capability, Profile.parse(batch))
    bundle = export_run(
        Run.open(run),
        out,
        targets=[name.strip() for name in targets.split(",") if name.strip()],
        golden=golden,
        rtx=rtx,
        say=lambda line: click.echo(line, err=as_json),
    )
    result = summarise(bundle, time.perf_counter() - started)
    click.echo(json.dumps(result, indent=2, ensure_ascii=False) if as_json else table(result))


def summarise(bundle: Bundle, seconds: float) -> dict[str, Any]:
    """The result as plain values: the bundle's name and hash, and the figures of every artefact."""
    artefacts = []
    for artefact in bundle.artefacts:
        error, flipped = worst_figures(bundle, artefact) or (None, None)
        artefacts.append(
            {
                "file": artefact.file,
                "bytes": bundle.files[artefact.file].bytes,
                "max_logit_error": error,
                "flipped_pixels": flipped,
                "verdicts": [vars(verdict) for verdict in artefact.parity],
            }
        )
    return {
        "bundle": str(bundle.root),
        "name": bundle.name,
        "sha256": bundle.digest(),
        "golden_images": len(bundle.golden),
        "pixels": len(bundle.golden) * bundle.contract.height * bundle.contract.width,
        "seconds": round(seconds, 1),
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
            flipped = f"{artefact['flipped_pixels']} of {result['pixels']}"
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
    end = f"{result['bundle']}: {result['name']}, sealed as {result['sha256'][:16]}, {result['seconds']} s"
    return "\n".join([line.rstrip() for line in lines] + notes + [end])
