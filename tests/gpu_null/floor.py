"""Starts functions on the null GPU, each in a process of its own: a process that has it never loses it."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
FLOORS = ("runtime", "train", "export", "benchmarks")
TIMEOUT_S = 300


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a function on the null GPU returned, and what the driver saw. counts: by the names in null.h."""

    value: Any
    counts: dict[str, int]
    trace: list[str]
    violations: list[str]


@dataclasses.dataclass(frozen=True)
class Floor:
    """An interpreter and the folder of stub libraries that it finds first.

    kernels: library of our kernels for the host, None where nothing launches them.
    """

    python: Path
    libraries: Path
    kernels: Path | None = None

    def call(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        variables: dict[str, str] | None = None,
        violations: bool = False,
        **options: Any,
    ) -> Answer:
        """Run a function of a module of this package with pickled arguments.

        variables: of the environment. violations: True where the test expects them; else they fail the call.
        Raises what the function raised; AssertionError where the process died or broke the driver's rules.
        """
        with tempfile.TemporaryDirectory(prefix="gpu-null-") as folder:
            request, written = Path(folder) / "request", Path(folder) / "answer"
            kernels = str(self.kernels) if self.kernels else None
            request.write_bytes(pickle.dumps((kernels, function, arguments, options)))
            done = subprocess.run(
                [str(self.python), "-m", "gpu_null.child", str(request), str(written)],
                env=self._environment(variables or {}), cwd=folder,
                capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
            assert done.returncode == 0, (
                f"the process ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
            value, error, text, *seen = pickle.loads(written.read_bytes())
        answer = Answer(value, *seen)
        if error is not None:
            error.args = error.args or ("",)
            raise error from AssertionError(text)
        assert violations or not answer.violations, "\n".join(answer.violations)
        return answer

    def _environment(self, variables: dict[str, str]) -> dict[str, str]:
        path = [TESTS, *(TESTS.parent / name for name in FLOORS)]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "LD_LIBRARY_PATH": str(self.libraries),
            "ORT_DISABLE_TELEMETRY": "1",
            **({"NULL_CUDA_KERNELS": str(self.kernels)} if self.kernels else {}),
            **variables,
        }
