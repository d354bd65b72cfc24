"""Do to tumorseg what a field does, and print the table: `make reliability`.

python -m reliability [--long] [--row NAME] [--seed 0] [--scale 1] [--pieces 1] [--out build/reliability]
(with tests/ in PYTHONPATH). Each row runs in a process of its own and leaves OUT/ROW.json; the table is
made of all that lie there. A row in pieces leaves OUT/pieces/ROW-SEED.json of each, and a run that was
ended goes on with those that are missing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from reliability.row import FAILED, PASSED
from reliability.rows import ROWS

SAME = {"readers", "threads", "backends and precisions", "kB grown at most"}  # other seeds do not add to them
LIMIT_S = {"quick": 1200, "long": 7200}  # of a row


def run_row(name: str, form: str, seed: int, scale: float, out: Path) -> dict[str, Any]:
    """The record of a row, also where its process died or was ended."""
    path, start, why = out / f"{name}.json", time.monotonic(), ""
    path.unlink(missing_ok=True)
    command = [sys.executable, "-W", "ignore", "-m", "reliability.child", name, form, str(seed), str(scale)]
    with subprocess.Popen([*command, str(path)], stdout=subprocess.DEVNULL, start_new_session=True) as child:
        try:
            child.wait(LIMIT_S[form])
        except BaseException as error:
            os.killpg(child.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            why = f"it took longer than {LIMIT_S[form]} s and was ended"
    if not path.is_file():
        reason = why or f"its process ended with status {child.returncode} and left no record"
        seconds = round(time.monotonic() - start, 1)
        values = {"row": name, "form": form, "seed": seed, "scale": scale, "status": FAILED, "reason": reason}
        path.write_text(json.dumps({**values, "counts": {}, "seconds": seconds, "cpu_seconds": 0}, indent=1))
    return dict(json.loads(path.read_text()))


def run_pieces(name: str, form: str, seed: int, scale: float, pieces: int, out: Path) -> dict[str, Any]:
    """The record of a row whose counts are shared out to so many seeds; those that passed are kept."""
    if pieces == 1:
        return run_row(name, form, seed, scale, out)
    folder = out / "pieces"
    folder.mkdir(exist_ok=True)
    records = []
    for one in range(seed, seed + pieces):
        path = folder / f"{name}-{one}.json"
        record = json.loads(path.read_text()) if path.is_file() else {}
        asked = {"form": form, "scale": scale / pieces, "status": PASSED}
        if asked != {key: record.get(key) for key in asked}:
            record = run_row(name, form, one, scale / pieces, folder)
            (folder / f"{name}.json").replace(path)
        records.append(record)
    whole = {**records[0], "scale": scale, "seed": f"{seed}-{seed + pieces - 1}"}
    bad = next((record for record in records if record["status"] != PASSED), records[0])
    whole |= {"status": bad["status"], "reason": bad["reason"], "faults": bad.get("faults", [])}
    found: dict[str, list[int]] = {}
    for record in records:
        for what, number in record["counts"].items():
            found.setdefault(what, []).append(number)
    whole["counts"] = {what: (max if what in SAME else sum)(numbers) for what, numbers in found.items()}
    for what in ("seconds", "cpu_seconds"):
        whole[what] = round(sum(record[what] for record in records), 1)
    (out / f"{name}.json").write_text(json.dumps(whole, indent=1))
    return whole


def table(records: list[dict[str, Any]]) -> str:
    """All records as Markdown."""
    lines = [
        "| row | what is done | expected | found | counts | seed | CPU seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for record in records:
        row = ROWS[record["row"]]
        found = record["status"] + (f": {record['reason']}" if record["reason"] else "")
        counts = ", ".join(f"{number:,} {what}" for what, number in record["counts"].items())
        cells = (record["row"], row.title, row.expected, found, counts, record["seed"], record["cpu_seconds"])
        lines.append("| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--long", "form", flag_value="long", help="The long form's counts: hours.")
@click.option("--quick", "form", flag_value="quick", default=True, help="Ten minutes of two cores.")
@click.option("--row", "names", multiple=True, type=click.Choice(list(ROWS)), help="Only these.")
@click.option("--seed", default=0, show_default=True)
@click.option("--scale", default=1.0, show_default=True, help="Times the counts.")
@click.option(
    "--pieces", default=1, show_default=True, help="Seeds that share a row's counts; ended, it goes on."
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/reliability"), show_default=True)
def main(form: str, names: tuple[str, ...], seed: int, scale: float, pieces: int, out: Path) -> None:
    """Run the rows; exit status 1 where one fails."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the row's processes end with this one
    out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in names or ROWS:
        record = run_pieces(name, form, seed, scale, pieces, out)
        click.echo(
            f"{name:<12} {record['status']}{': ' * bool(record['reason'])}{record['reason']}", err=True
        )
        failed += [name] if record["status"] == FAILED else []
    records = [json.loads(path.read_text()) for name in ROWS if (path := out / f"{name}.json").is_file()]
    (out / "table.md").write_text(table(records))
    click.echo(table(records))
    passed = sum(record["status"] == PASSED for record in records)
    click.echo(f"{passed} of {len(records)} rows passed{', failed: ' * bool(failed)}{', '.join(failed)}")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
