"""One row in a process of its own: `python -m reliability.child NAME LONG SEED SCALE OUT.json`."""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from reliability.row import FAILED, NOT_POSSIBLE, PASSED, NotPossibleError, Settings, Tally
from reliability.rows import ROWS

SHOWN = 20  # faults that are kept


def main(name: str, long: str, seed: str, scale: str, out: str) -> None:
    """Run the row and write what was found."""
    module, function = ROWS[name].run.split(":")
    tally, reason, start = Tally(), "", time.monotonic()
    memory = Path("/dev/shm")  # where a sync costs nothing
    place = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="reliability-", dir=place) as folder:
        settings = Settings(long == "long", int(seed), float(scale), Path(folder))
        try:
            getattr(importlib.import_module(f"reliability.{module}"), function)(settings, tally)
        except NotPossibleError as error:
            reason = str(error)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    record = {
        "row": name,
        "form": long,
        "seed": settings.seed,
        "scale": settings.scale,
        "status": FAILED if tally.faults else NOT_POSSIBLE if reason else PASSED,
        "reason": reason or "; ".join(tally.faults[:1]),
        "counts": dict(tally.counts),
        "faults": tally.faults[:SHOWN],
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(sum(one.ru_utime + one.ru_stime for one in used), 1),
    }
    Path(out).write_text(json.dumps(record, indent=1))
    sys.stdout.flush()
    os._exit(0)  # threads that a row has left hanging on purpose


if __name__ == "__main__":
    main(*sys.argv[1:])
