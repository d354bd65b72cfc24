"""`tumorseg parity`: does every artefact of a bundle decide what PyTorch decided?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tumorseg_benchmarks.machine import load_average, machine_facts
from tumorseg_benchmarks.parity import check_parity
from tumorseg_benchmarks.report import (
    SCHEMA,
    parity_markdown,
    parity_text,
    subject_facts,
    to_json,
    write_report,
)
from tumorseg_runtime.bundle import Bundle
from tumorseg_runtime.errors import ParityError

if TYPE_CHECKING:
    from tumorseg_train.run import Run

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
@click.option("--json", "as_json", is_flag=True, help="Print parity.json instead of the table.")
def parity(
    bundle: Path,
    run_folder: Path | None,
    part: str,
    limit: int,
    out: Path,
    device_folder: Path | None,
    as_json: bool,
) -> None:
    """Compare every artefact of BUNDLE, under every backend of this machine, with PyTorch.

    Without --run only the golden images are replayed, which needs no PyTorch. What cannot run here is listed
    as unverified. The exit status is 1 where an artefact breaks its budget.
    """
    opened = Bundle.open(bundle)
    run = open_run(run_folder)
    before = load_average()
    rows = check_parity(
        opened,
        run,
        part,
        limit,
        progress=lambda line: click.echo(f"{line} ...", err=True),
        device_folder=device_folder,
    )
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "parity",
        "machine": machine_facts(),
        "load_average": {"before": before, "after": load_average()},
        **subject_facts(opened, run),
        "rows": [row.to_dict() for row in rows],
    }
    write_report(out, "parity", values, parity_markdown(rows, values))
    click.echo(to_json(values) if as_json else parity_text(rows, values), nl=False)
    click.echo(f"report: {out}/parity.md, {out}/parity.json", err=True)
    breaches = [line for row in rows for line in row.breaches]
    if breaches:
        first = "; ".join(breaches[:SHOWN])
        more = f"; {len(breaches) - SHOWN} more" if len(breaches) > SHOWN else ""
        raise ParityError(
            f"{bundle}: {len(breaches)} breaches of parity, expected none: {first}{more}: "
            f"do not use what is named breached in {out}/parity.md; export it again"
        )


def open_run(folder: Path | None) -> Run | None:
    """The run in a folder; only where one is given is torch imported."""
    if folder is None:
        return None
    from tumorseg_train.run import Run

    return Run.open(folder)
