"""Processes of their own: what they report, and what a failure says."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tumorseg_benchmarks.latency import cold_start
from tumorseg_benchmarks.latency.cold_start import STARTS, measure_cold
from tumorseg_benchmarks.latency.rows import BenchRow
from tumorseg_benchmarks.variants.third_party_baselines import THIRD_PARTY_BASELINES
from tumorseg_benchmarks.variants.variants import VARIANTS, Variant
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import BackendError

pytestmark = pytest.mark.process

ONNX = next(one for one in VARIANTS if one.name == "onnx-fp32-onnxruntime-cpu")


def test_a_variant_starts_loads_and_runs_in_a_process_of_its_own(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(cold_start, "STARTS", 1)
    found = measure_cold(tiny_bundle, None, ONNX, 1)
    assert found.start_ms > found.load_ms + found.first_ms > 0
    assert found.later_ms > 0
    assert 30 < found.peak_mb < 2000  # of a Python with numpy, OpenCV and ONNX Runtime
    assert found.gpu_mb is None


def test_medians_over_the_processes_and_the_largest_peak(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    begun = time.monotonic_ns()

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        number = len(commands)
        values = {
            "load_ms": [1.0, 9.0, 2.0][number - 1], "first_ms": 5.0, "later_ms": 4.0,
            "logits_ns": begun + 10**12, "peak_mb": [10.0, 30.0, 20.0][number - 1], "gpu_mb": 1.0 * number,
        }  # fmt: skip
        return subprocess.CompletedProcess(command, 0, f"a library's chatter\n{json.dumps(values)}\n", "")

    monkeypatch.setattr(cold_start.subprocess, "run", run)
    found = measure_cold(tiny_bundle, None, ONNX, 2)
    assert len(commands) == STARTS == 3
    assert commands[0][-4:] == [str(tiny_bundle.root), ONNX.name, "--threads", "2"]
    assert (found.load_ms, found.first_ms, found.peak_mb, found.gpu_mb) == (2.0, 5.0, 30.0, 3.0)
    assert found.start_ms < 1e6  # counted from a start after `begun`


def test_a_process_that_fails_says_why_in_one_line(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = dataclasses.replace(tiny_bundle, root=tiny_bundle.root / "nowhere")
    with pytest.raises(BackendError, match=r"ONNX Runtime CPU: failed in a process of its own: .*nowhere"):
        measure_cold(broken, None, ONNX, 1)

    def late(command: list[str], **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(cold_start.subprocess, "run", late)
    with pytest.raises(BackendError, match="took more than 900 s in a process of its own, expected less"):
        measure_cold(tiny_bundle, None, ONNX, 1)


def ends_with(status: int, output: str, error: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Stands for `subprocess.run`: runs a real process that prints this and ends so (-9: is killed)."""
    end = f"os.kill(os.getpid(), {-status})" if status < 0 else f"sys.exit({status})"
    code = f"import os, sys; sys.stdout.write({output!r}); print({error!r}, end='', file=sys.stderr); {end}"
    run = subprocess.run
    return lambda command, **options: run([sys.executable, "-c", code], **options)


@pytest.mark.parametrize(
    ("status", "output", "error", "message"),
    [
        (1, "", "Traceback ...\n  File x\nValueError: no such layer\n", "own: ValueError: no such layer$"),
        (3, "", "", "own: no message, status 3$"),
        (-9, "", "", "own: no message, status -9$"),
        (-11, "", "warning: odd CPU\n", "own: warning: odd CPU$"),
        (1, '{"first_ms": 1}\n', "it fell over\n", "own: it fell over$"),
        (0, "", "", "own ended with: is no line of figures: .*: run it by hand to see why$"),
        (0, '{"first_ms": 1}\nbye\n', "", "own ended with: is no line of figures: .*: run it by hand"),
    ],
)
def test_however_a_process_ends_the_message_is_one_line(
    status: int, output: str, error: str, message: str, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold_start.subprocess, "run", ends_with(status, output, error))
    with pytest.raises(BackendError, match=message) as caught:
        measure_cold(tiny_bundle, None, ONNX, 1)
    assert str(caught.value).startswith(f"{ONNX.label}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_variant_that_cannot_be_opened_ends_its_process_with_the_reason(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    """The child's own side: what it prints, its status, and that nothing is taken for figures."""
    root = tmp_path / "bundle"
    shutil.copytree(tiny_bundle.root, root)
    (root / tiny_bundle.artefact("onnx", "fp32").file).write_bytes(b"no network")
    done = subprocess.run(
        [sys.executable, "-m", "tumorseg_benchmarks.latency.cold_start", str(root), ONNX.name],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert "model.onnx" in done.stderr.strip().splitlines()[-1]
    with pytest.raises(BackendError, match=r"failed in a process of its own: .*model\.onnx"):
        measure_cold(dataclasses.replace(tiny_bundle, root=root), None, ONNX, 1)


def test_the_peak_counts_the_processes_that_were_started() -> None:
    alone = cold_start._peak_mb()
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            assert cold_start._peak_mb() > alone
        finally:
            child.kill()


def test_stock_runtimes_are_not_started_alone_and_a_failure_is_noted(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = cold_start.ColdStart(1.0, 1.0, 1.0, 1.0, 1.0, None)
    started = []

    def measure(bundle: Bundle, run: object, variant: Variant, *_: object) -> cold_start.ColdStart:
        started.append(variant.name)
        if variant.precision == "fp16":
            raise BackendError("it fell over")
        return found

    monkeypatch.setattr(cold_start, "measure_cold", measure)
    halves = next(one for one in VARIANTS if one.name == "onnx-fp16-onnxruntime-cpu")
    rows = [
        BenchRow(one, one.label, "variant", 1, "measured") for one in (ONNX, halves, THIRD_PARTY_BASELINES[2])
    ]
    rows.append(BenchRow(ONNX, ONNX.label, "control", 1, "measured"))
    cold_starts, failed = cold_start.start_cold(tiny_bundle, None, rows, 1, None, lambda line: None)
    assert started == [ONNX.name, halves.name]
    assert cold_starts == {ONNX.name: found}
    assert failed == {
        halves.name: "it fell over",
        THIRD_PARTY_BASELINES[
            2
        ].name: "stock ONNX Runtime: not started alone, since that would measure its conversion",
    }
