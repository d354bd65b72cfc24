"""The evidence without a GPU: stages on substitutes, and what is said of those that cannot run or fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.cuda import FakeDriver
from fakes.tensorrt import FakeTensorRt
from tumorseg_benchmarks.gpu_evidence import __main__ as command
from tumorseg_benchmarks.gpu_evidence import engines, kernel, tensorrt_device
from tumorseg_benchmarks.gpu_evidence.stage import (
    DRY,
    NOT_POSSIBLE,
    PASSED,
    REFUSED,
    Findings,
    NotPossibleError,
    Options,
    run_stage,
)
from tumorseg_benchmarks.variants.host_kernel import compile_kernels, why_no_compiler
from tumorseg_runtime.core.errors import BackendError, CheckFailedError, InputError
from tumorseg_runtime.device.cuda import Gpu
from tumorseg_runtime.processing import preprocess_cuda

# What a machine with a GPU need not have (docs/gpu.md); None in sys.modules: not installed.
ABSENT = (
    "click", "pydantic", "onnx", "onnxscript", "onnxruntime", "segmentation_models_pytorch", "timm",
    "albumentations", "pytorch_lightning", "lightning", "safetensors", "torchvision", "nibabel", "jinja2",
)  # fmt: skip


def quiet(line: str) -> None:
    pass


def stage(run: Any, folder: Path, *, dry: bool = False) -> dict[str, Any]:
    return run_stage("kernel", "a GPU", run, Options(dry, None, folder), quiet)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    if reason := why_no_compiler():
        pytest.skip(reason)
    fake = FakeDriver(compile_kernels(tmp_path))
    for module in (kernel, preprocess_cuda, tensorrt_device):
        monkeypatch.setattr(module, "open_gpu", lambda ordinal=0: Gpu(fake))
    monkeypatch.setattr(preprocess_cuda, "cubin_of", lambda capability, cache: b"cubin")
    monkeypatch.setattr(kernel, "why_no_driver", lambda: None)
    monkeypatch.setattr(kernel, "compiles", lambda found: None)
    monkeypatch.setattr(kernel, "CORNERS", ((1, 1), (7, 1), (2, 2), (64, 96), (40, 3)))
    monkeypatch.setattr(kernel, "FRAMES", {"small": (50, 60)})
    monkeypatch.setattr(kernel, "DRAWN", kernel.DRAWN_DRY)
    monkeypatch.setattr(kernel, "PIECE", kernel.PIECE_DRY)  # its memory is this machine's
    monkeypatch.setattr(tensorrt_device, "require_driver", lambda: None)
    return fake


def test_the_kernel_stage_passes_on_the_host_s_kernels(driver: FakeDriver, tmp_path: Path) -> None:
    found = stage(kernel.run, tmp_path, dry=True)
    assert found["status"] == DRY, found
    assert [check["passed"] for check in found["checks"]] == [True] * 9
    assert list(found["figures"]) == ["small to 512x512, host to GPU, ms, median"]


def test_the_kernel_stage_refuses_one_wrong_value(driver: FakeDriver, tmp_path: Path) -> None:
    right = driver.kernels["preprocess_float16"]

    def wrong(grid: Any, block: Any, values: Any) -> None:
        right(grid, block, values)
        (np.ctypeslib.as_array((np.ctypeslib.ctypes.c_uint16 * 1).from_address(values[3].value)))[0] ^= 1

    driver.kernels["preprocess_float16"] = wrong
    found = stage(kernel.run, tmp_path)
    assert found["status"] == REFUSED
    assert "same bits as the CPU, rgb float16" in found["reason"]


def test_engines_are_judged_by_the_logits_that_are_known(
    driver: FakeDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = FakeTensorRt(driver, classes=2, size=(64, 96))
    monkeypatch.setattr(tensorrt_device, "load_tool", lambda name: trt)
    monkeypatch.setattr("tumorseg_runtime.backends.tensorrt.load_tool", lambda name: trt)
    monkeypatch.setattr(tensorrt_device, "KINDS", ("rgb",))
    assert "away, expected" in stage(tensorrt_device.run, tmp_path)["checks"][0]["detail"]
    mean = lambda kind, tensor: np.repeat(tensor.mean(axis=0, keepdims=True), 2, axis=0)  # noqa: E731
    monkeypatch.setattr(engines, "expected_logits", mean)
    found = stage(tensorrt_device.run, tmp_path)
    assert found["status"] == PASSED, found
    assert found["unverified"] == ["a trained network: --bundle was not given"]


def lacking(options: Options, found: Findings) -> None:
    raise NotPossibleError("no NVIDIA driver")


def crashing(options: Options, found: Findings) -> None:
    raise ZeroDivisionError("three over nothing")


def refusing(options: Options, found: Findings) -> None:
    def work() -> str:
        raise BackendError("got 1, expected 2: build again")

    found.check("first", True, "")
    found.attempt("second", work)


@pytest.mark.parametrize(
    ("run", "status", "reason"),
    [
        (lacking, NOT_POSSIBLE, "no NVIDIA driver"),
        (crashing, REFUSED, "ZeroDivisionError: three over nothing"),
        (refusing, REFUSED, "failed: second"),
        (lambda options, found: found.lacks("a network"), NOT_POSSIBLE, "a network"),
        (lambda options, found: found.check("one", True, ""), PASSED, ""),
    ],
)
def test_a_record_says_what_became_of_its_stage(run: Any, status: str, reason: str, tmp_path: Path) -> None:
    found = stage(run, tmp_path)
    assert (found["status"], found["reason"]) == (status, reason)
    assert ("Traceback" in found["trace"]) is (run is crashing)


def test_a_package_that_is_missing_makes_a_stage_impossible_and_refuses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module, missing, error in (
        ("pytorch", "torch", NotPossibleError),
        ("providers", "tumorseg_runtime.backends", ModuleNotFoundError),
    ):  # fmt: skip
        name = f"tumorseg_benchmarks.gpu_evidence.{module}"
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(error, match=missing):
            command.STAGES["torch" if module == "pytorch" else "onnxruntime"].load()


def test_stages_that_must_pass_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert command.required_stages("") == ()
    assert command.required_stages("kernel,torch") == ("kernel", "torch")
    assert command.required_stages("all") == tuple(command.STAGES)
    with pytest.raises(InputError, match="TUMORSEG_REQUIRE_GPU names cuda, expected of kernel, torch"):
        command.required_stages("cuda")
    record = {"status": NOT_POSSIBLE, "reason": "no NVIDIA driver", "seconds": 0.0}
    monkeypatch.setattr(command, "run_child", lambda *arguments, **named: record)
    command.evidence(command.parse(["--stage", "torch"]))
    monkeypatch.setenv(command.REQUIRE, "torch")
    with pytest.raises(CheckFailedError, match="torch not possible here, expected passed"):
        command.evidence(command.parse(["--stage", "torch", "--out", str(tmp_path)]))


@pytest.mark.process
@pytest.mark.fault
def test_a_stage_that_hangs_or_dies_leaves_a_record_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = sys.executable
    for code, limit, reason in (
        ("import time; time.sleep(60)", 1, "it took longer than 1 s and was ended"),
        ("import os; os.abort()", 60, "its process ended with status -6 and left no record"),
    ):
        program = tmp_path / "python"
        program.write_text(f'#!/bin/sh\nexec "{python}" -c "{code}"\n', encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setattr(command.sys, "executable", str(program))
        left = command.run_child("torch", tmp_path / "torch.json", [], limit, dry=False)
        assert (left["status"], left["reason"]) == (REFUSED, reason)
        assert (tmp_path / "torch.json").is_file()


@pytest.mark.process
def test_under_offline_no_connection_leaves_the_machine() -> None:
    code = (
        "import socket; from tumorseg_benchmarks.gpu_evidence.child import forbid_network; forbid_network()\n"
        "for work in (lambda: socket.create_connection(('192.0.2.1', 80), 1), "
        "lambda: socket.getaddrinfo('example.org', 80)):\n"
        "    try: work()\n"
        "    except ConnectionError as error: print(error)\n"
        "try: socket.create_connection(('127.0.0.1', 9), 1)\n"
        "except ConnectionRefusedError: print('asked')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.count("under --offline, expected no use of the network") == 2
    assert done.stdout.endswith("asked\n")


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("name", ["kernel", "train"])
def test_a_dry_run_of_a_stage_loads_only_what_it_needs(name: str, tmp_path: Path) -> None:
    """Here with numpy, OpenCV and torch alone, for the command as for the stage."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({ABSENT}))\n"
        "from tumorseg_benchmarks.gpu_evidence import __main__, child; __main__.say(''); child.main(); "
        "print([one for one in ('torch', 'onnx', 'onnxruntime', 'segmentation_models_pytorch') "
        "if sys.modules.get(one)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name, str(tmp_path / "record.json"), "--dry", "--offline"],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    assert done.stdout == ("\n['torch']\n" if name == "train" else "\n[]\n"), done.stderr
    text = (tmp_path / "record.json").read_text(encoding="utf-8")
    assert '"status": "dry run"' in text or '"status": "not possible here"' in text
