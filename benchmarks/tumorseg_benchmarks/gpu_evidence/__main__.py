"""`python -m tumorseg_benchmarks.gpu_evidence`: what only a machine with an NVIDIA GPU can show."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tumorseg_benchmarks.gpu_evidence.stage import DRY, PASSED, REFUSED, record, write_record
from tumorseg_benchmarks.gpu_evidence.stages import STAGES
from tumorseg_runtime.cli.terminal import say, say_text
from tumorseg_runtime.core.errors import CheckFailedError, InputError, TumorsegError
from tumorseg_runtime.core.paths import require
from tumorseg_runtime.core.records import Format
from tumorseg_runtime.core.stop import Stopped, stoppable

REQUIRE = "TUMORSEG_REQUIRE_GPU"
LIMIT_S = 600
OUT = Path("build/gpu-evidence")
DESCRIPTION = """\
Run each stage in a process of its own. It leaves one JSON: passed, refused or not possible here.

Exit status 1 where a stage is refused, or one that TUMORSEG_REQUIRE_GPU names (kernel,torch,... or all) did
not pass. docs/gpu.md says what to install and what to send back.

""" + "\n".join(f"  {name:<12} needs {stage.needs}" for name, stage in STAGES.items())
_RECORD = Format("record of a stage", "run the stage again")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; by argparse, since such a machine need not have click."""
    parser = argparse.ArgumentParser(
        prog="python -m tumorseg_benchmarks.gpu_evidence", description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--stage", action="append", choices=[*STAGES], help="only this one; may be repeated")
    add("--offline", action="store_true", help="every connection to another machine is an error")
    add("--dry", action="store_true", help="without a GPU, substitutes in its place: no evidence of a GPU")
    add("--bundle", type=Path, help="a bundle that is proven, too")
    add("--limit", type=int, default=LIMIT_S, help=f"seconds of a stage [{LIMIT_S}]")
    add("--out", type=Path, default=OUT, help=f"folder of STAGE.json [{OUT}]")
    return parser.parse_args(arguments)


def evidence(values: argparse.Namespace) -> None:
    """Run the stages; raises CheckFailedError where one is refused, or one that must pass did not."""
    required = required_stages(os.environ.get(REQUIRE, ""))
    flags = [f"--{name}" for name in ("offline", "dry") if getattr(values, name)]
    if values.bundle is not None:
        require(values.bundle, "a bundle", "give its folder")
        flags += ["--bundle", str(values.bundle)]
    wrong = []
    for name in values.stage or STAGES:
        left = run_child(name, values.out / f"{name}.json", flags, values.limit, dry=values.dry)
        status, reason = left["status"], left["reason"]
        say(f"{name:<12} {status}{f': {reason}' if reason else ''} ({left['seconds']:.0f} s)")
        if status == REFUSED or (name in required and status not in (PASSED, DRY)):
            wrong.append(f"{name} {status}")
    if wrong:
        raise CheckFailedError(f"{'; '.join(wrong)}, expected passed: read {values.out}/STAGE.json")


def required_stages(text: str) -> tuple[str, ...]:
    """The stages that must pass: 'kernel,torch', 'all' or ''; raises InputError."""
    names = tuple(STAGES) if text == "all" else tuple(filter(None, text.split(",")))
    if unknown := [name for name in names if name not in STAGES]:
        raise InputError(f"{REQUIRE} names {', '.join(unknown)}, expected of {', '.join(STAGES)}, or all")
    return names


def run_child(name: str, path: Path, flags: list[str], limit: int, *, dry: bool) -> dict[str, Any]:
    """Run one stage for at most `limit` seconds; its record, also where its process died or was ended."""
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", f"{__package__}.child", name, str(path.absolute()), *flags]
    start, why = time.monotonic(), ""
    with subprocess.Popen(command, start_new_session=True) as child:
        try:
            child.wait(limit)
        except BaseException as error:
            os.killpg(child.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            why = f"it took longer than {limit} s and was ended"
    if not path.is_file():
        why = why or f"its process ended with status {child.returncode} and left no record"
        values = record(name, STAGES[name].needs, REFUSED, why, dry, time.monotonic() - start)
        write_record(path, values)
        return values
    left: dict[str, Any] = _RECORD.read(path, dict[str, Any])
    return left


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; turn the project's own errors into one line and an exit status."""
    try:
        with stoppable():
            evidence(parse(arguments))
    except TumorsegError as error:
        say_text(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except Stopped as stopped:
        sys.exit(stopped.exit_code)


if __name__ == "__main__":
    main()
