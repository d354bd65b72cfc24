"""`python -m tumorseg_benchmarks.export_matrix`: which networks of smp export to a graph that is right."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from tumorseg_benchmarks.export_matrix.cases import COVER, Case, whole
from tumorseg_benchmarks.export_matrix.checks import FAILED, PASSED, run
from tumorseg_benchmarks.export_matrix.page import page
from tumorseg_runtime.cli.main import one_line_errors
from tumorseg_runtime.cli.terminal import say, say_text
from tumorseg_runtime.core.errors import CheckFailedError
from tumorseg_runtime.core.files import make_folder, write_text
from tumorseg_runtime.core.records import Format, to_json

OUT = Path("build/export-matrix")
PAGE = "export-matrix.md"
CASES_OF_A_PROCESS = 24  # importing costs as much as half a case
_RECORD = Format("record of a case", "delete it, and run the case again")


@click.command(epilog="Example: python -m tumorseg_benchmarks.export_matrix --workers 4")
@click.option("--cover", "covering", is_flag=True, help="Only the 12 cases that CI runs.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True, help="Folder.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
@click.option("--again", is_flag=True, help="Run also the cases whose record lies in the folder.")
def matrix(*, covering: bool, out: Path, workers: int, again: bool) -> None:
    """Export every architecture of smp with an encoder of each family, and check the graphs.

    Each case leaves a record in the folder, so that a run that was ended goes on where it was. The page,
    export-matrix.md, is made of all records there (docs/export-matrix.md is a copy). Exit status 1 where a
    case failed.
    """
    cases = COVER if covering else whole()
    make_folder(out)
    left = [case for case in cases if again or not record_of(case, out).is_file()]
    for number, record in enumerate(ran(left, out, workers), 1):
        case = Case(**record["case"])
        write_text(record_of(case, out), to_json(record) + "\n")
        reason = "" if record["status"] == PASSED else f": {record['reason']}"
        say(
            f"{number}/{len(left)} {case.name} {record['status']}{reason} ({record['seconds']:.0f} s)",
            err=True,
        )
    records = [
        _RECORD.read(path, dict[str, Any]) for case in whole() if (path := record_of(case, out)).is_file()
    ]
    text = page(records)
    write_text(out / PAGE, text)
    say_text(text)
    if failed := [Case(**record["case"]).name for record in records if record["status"] == FAILED]:
        raise CheckFailedError(f"{len(failed)} cases failed: {', '.join(failed[:5])}: read {out / PAGE}")


def record_of(case: Case, out: Path) -> Path:
    """Where the record of a case lies."""
    return out / f"{case.name}.json"


def ran(cases: Sequence[Case], out: Path, workers: int) -> Iterator[dict[str, Any]]:
    """The cases' records as they are done, in processes that are replaced, since exports leave memory."""
    with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=CASES_OF_A_PROCESS) as pool:
        yield from pool.imap_unordered(functools.partial(run, folder=out), cases)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; turn the project's own errors into one line and an exit status."""
    with one_line_errors():
        matrix.main(arguments, prog_name="python -m tumorseg_benchmarks.export_matrix")


if __name__ == "__main__":
    main()
