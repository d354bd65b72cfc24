"""A stage of the evidence: what it needs, what it finds, and the one JSON file that it leaves."""

from __future__ import annotations

import dataclasses
import importlib.util
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tumorseg_benchmarks.variants.machine import machine_facts, package_version
from tumorseg_runtime.core.errors import TumorsegError
from tumorseg_runtime.core.files import make_folder, write_text
from tumorseg_runtime.core.records import to_json
from tumorseg_runtime.device.driver import gpu_facts, why_no_driver

SCHEMA = 1
PASSED, REFUSED, NOT_POSSIBLE, DRY = "passed", "refused", "not possible here", "dry run"
PACKAGES = (
    "cuda-bindings", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12", "tensorrt", "tensorrt-rtx", "onnx",
    "pytorch-lightning", "cupy-cuda12x", "cupy-cuda13x",
)  # fmt: skip


class NotPossibleError(Exception):
    """This machine lacks what the stage needs."""


@dataclasses.dataclass(frozen=True)
class Options:
    """dry: what needs a GPU is replaced (`--dry`). bundle: None for the tiny networks of the package.
    folder: for what the stage writes besides its record."""

    dry: bool
    bundle: Path | None
    folder: Path


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that was looked at. detail: the figures behind it."""

    name: str
    passed: bool
    detail: str


@dataclasses.dataclass
class Findings:
    """What a stage has found so far. unverified: what it could not look at, and why. figures: for people;
    nothing is judged by them."""

    log: Callable[[str], None]
    checks: list[Check] = dataclasses.field(default_factory=list)
    unverified: list[str] = dataclasses.field(default_factory=list)
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)

    def check(self, name: str, passed: bool, detail: str) -> None:
        """Note a check, passed or not, and say it."""
        self.checks.append(Check(name, bool(passed), detail))
        self.log(f"  {'ok' if passed else 'REFUSED'}: {name} ({detail})")

    def lacks(self, what: str) -> None:
        """Note what this machine cannot show."""
        self.unverified.append(what)
        self.log(f"  unverified: {what}")

    def attempt(self, name: str, work: Callable[[], str]) -> None:
        """A check that passes with what `work` returns, and fails with the error of the project it raises."""
        try:
            detail = work()
        except TumorsegError as error:
            self.check(name, False, str(error))
        else:
            self.check(name, True, detail)


Run = Callable[[Options, Findings], None]


def require_driver() -> None:
    """Raise NotPossibleError where no NVIDIA driver answers."""
    if reason := why_no_driver():
        raise NotPossibleError(reason)


def require_modules(*names: str) -> None:
    """Raise NotPossibleError where a module is not installed; imports none."""
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise NotPossibleError(f"not installed: {', '.join(missing)}")


def run_stage(
    name: str, needs: str, run: Run, options: Options, log: Callable[[str], None]
) -> dict[str, Any]:
    """Run one stage in this process; returns its record, whatever happens."""
    found, start = Findings(log), time.monotonic()
    status, reason, trace = PASSED, "", ""
    log(f"{name}: needs {needs}")
    try:
        run(options, found)
    except NotPossibleError as error:
        status, reason = NOT_POSSIBLE, str(error)
    except Exception as error:  # noqa: BLE001  # whatever it is, the record says it
        status, reason = REFUSED, f"{type(error).__name__}: {error}"
        trace = "" if isinstance(error, TumorsegError) else traceback.format_exc()
    failed = [check.name for check in found.checks if not check.passed]
    if failed:
        status, reason = REFUSED, "; ".join(filter(None, [reason, f"failed: {', '.join(failed)}"]))
    elif status == PASSED and not found.checks:
        status, reason = NOT_POSSIBLE, "; ".join(found.unverified) or "nothing could be checked"
    elif status == PASSED and options.dry:
        status, reason = DRY, "the steps ran, partly on a substitute: no evidence of a GPU"
    return {
        **record(name, needs, status, reason, options.dry, time.monotonic() - start),
        "checks": [dataclasses.asdict(check) for check in found.checks],
        "unverified": found.unverified,
        "figures": found.figures,
        "trace": trace,
    }


def record(name: str, needs: str, status: str, reason: str, dry: bool, seconds: float) -> dict[str, Any]:
    """What every record holds."""
    gpu = gpu_facts()
    machine = machine_facts()
    machine["packages"] |= {one: version for one in PACKAGES if (version := package_version(one))}
    return {
        "schema": SCHEMA,
        "kind": "gpu-evidence",
        "stage": name,
        "needs": needs,
        "status": status,
        "reason": reason,
        "dry": dry,
        "seconds": round(seconds, 1),
        "gpu": None if gpu is None else dataclasses.asdict(gpu),
        "machine": machine,
    }


def write_record(path: Path, values: dict[str, Any]) -> None:
    """The stage's JSON file, whole."""
    make_folder(path.parent)
    write_text(path, to_json(values))
