"""How long `import tumorseg_runtime` takes, against the packages that it cannot do without."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from tumorseg_benchmarks.latency.latency import Call, TimingPlan, measure
from tumorseg_benchmarks.reports.figure import STAGE, Figure, Progress, Target, median_ms, ratio
from tumorseg_runtime.core.errors import CheckFailedError

TARGET = Target(1.2)
OURS, THEIRS = "import tumorseg_runtime", "import numpy, cv2, click"
CLOCK = "import time; start = time.perf_counter_ns(); {}; print(time.perf_counter_ns() - start)"


def measure_imports(plan: TimingPlan, progress: Progress) -> list[Figure]:
    """Each import in fresh interpreters, in turn. Compiled files are kept in a folder of their own."""
    with tempfile.TemporaryDirectory() as cache:
        # As after an installation by pip, whatever this shell says about compiled files.
        variables = {name: v for name, v in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        variables["PYTHONPYCACHEPREFIX"] = cache
        calls = {code: _import(code, variables) for code in (OURS, THEIRS)}
        for call in calls.values():
            call(0)  # writes the compiled files
        samples = measure(
            calls,
            plan,
            prime=False,
            progress=lambda number, _: progress(f"import: round {number + 1}/{plan.rounds}"),
        )
    ours, theirs = samples[OURS], samples[THEIRS]
    note = f"{median_ms(ours):.0f} ms against {median_ms(theirs):.0f} ms"
    return [ratio(f"{OURS} / {THEIRS}", ours, theirs, TARGET, note)]


def _import(code: str, variables: dict[str, str]) -> Call:
    def call(number: int) -> dict[str, int]:
        command = [sys.executable, "-c", CLOCK.format(code)]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2]
            raise CheckFailedError(f"'{code}' failed in a fresh interpreter ({last}), expected it to import")
        return {STAGE: int(done.stdout)}

    return call
