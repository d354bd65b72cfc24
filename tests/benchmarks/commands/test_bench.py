"""`tumorseg bench` as a whole, on the tiny bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click.testing
import numpy as np
import pytest

from tumorseg_benchmarks.commands.bench import bench, parse_numbers
from tumorseg_benchmarks.variants.inputs import file_inputs
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import InputError

if TYPE_CHECKING:
    from tumorseg_train.networks.run import Run


def invoke(
    *arguments: str | Path, short: tuple[str, ...] = ("--rounds", "8", "--no-cold")
) -> click.testing.Result:
    return click.testing.CliRunner().invoke(bench, ["--threads", "1", *short, *map(str, arguments)])


@pytest.mark.slow
def test_command_with_a_run_writes_everything(
    tiny_bundle: Bundle, tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tumorseg_benchmarks.variants.candidates.why_no_driver", lambda: "no NVIDIA driver")
    result = invoke(tiny_bundle.root, "--run", tiny_run.root, "--batches", "1,2", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "batch 2: round 8/8" in result.stderr
    values = json.loads((tmp_path / "bench.json").read_text())
    assert values["schema"] == 2
    assert values["bundle"]["sha256"] == tiny_bundle.digest()
    assert values["run"]["checkpoint_sha256"] == tiny_run.checkpoint_sha256
    assert values["reference"]["timed_against"] == "PyTorch eager"
    assert values["plan"] == {
        "batches": [1, 2], "rounds": 8, "threads": [1], "seed": 0, "settle_seconds": 0.05,
        "budget_seconds": None,
    }  # fmt: skip
    assert [image["name"] for image in values["images"]] == [
        item.image for item in tiny_run.manifest().part("test")
    ]
    assert len(values["load_average"]["before"]) == len(values["load_average"]["after"]) == 3
    rows = values["rows"]
    assert len(rows) == 2 * 4  # PyTorch, its control, FP32, FP16
    measured = [row for row in rows if row["status"] == "measured"]
    assert [(row["role"], row["batch"]) for row in measured if row["role"] != "variant"].count(
        ("control", 1)
    ) == 1
    for row in measured:
        assert len(row["samples"]) in (8, 24)  # of 8 rounds: of one call each, or of three that are quick
        assert set(row["samples"][0]["ms"]) == {"decode", "preprocess", "infer", "postprocess"}
        assert row["parity"]["passed"]
        assert row["stages"]["infer"]["samples"] == len(row["samples"])
        assert (row["speed_up"] is None) == (row["role"] == "reference")
    positions = {tuple(s["position"] for s in row["samples"]) for row in measured if row["batch"] == 1}
    assert len(positions) > 1, "the order within the rounds is drawn anew"
    assert [row for row in rows if row["status"] != "measured"] == []
    left_out = values["left_out"]
    assert "TensorRT engine FP16, of this device" in left_out["no NVIDIA driver"]
    assert {"ncnn FP32, CPU", "MNN FP32, CPU"} <= set(left_out["not in the bundle"])
    text = (tmp_path / "bench.md").read_text()
    for one in values["choice"]:
        assert one["reason"] in result.stdout, "why each won or lost is printed"
    assert text.count("TensorRT engine FP16, of this device") == 1, "one line, not a row in each table"
    assert "A/A control: PyTorch eager against itself:" in text
    # Which of the two depends on what the machine's noise lets be told apart.
    assert "the lowest median of those that pass parity" in text or "was found, and it errs less" in text
    assert "## Share of the direct-convolution bound" in text
    page = (tmp_path / "bench.html").read_text()
    for label in ("PyTorch eager (A/A control)", "ONNX FP16, ONNX Runtime CPU", "TensorRT engine FP16"):
        assert label in page
    assert "http" not in page.replace("http-equiv", ""), "the page loads nothing"
    assert set(values["worst"]["onnx-fp16-onnxruntime-cpu"]["pictures"]) == {
        "input", "truth", "mask", "flips",
    }  # fmt: skip
    assert [one["status"] for one in values["choice"]] == ["won", "lost"]


def test_command_without_a_run_says_what_the_reference_is(tiny_bundle: Bundle, tmp_path: Path) -> None:
    result = invoke(tiny_bundle.root, "--batches", "1", "--out", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values == json.loads((tmp_path / "bench.json").read_text())
    assert values["run"] is None
    assert values["reference"]["timed_against"] == (
        "ONNX FP32, ONNX Runtime CPU (no run was given, so PyTorch was not timed)"
    )
    assert "PyTorch eager" in values["left_out"]["no run was given (--run)"]
    assert [image["name"] for image in values["images"]] == list(tiny_bundle.golden)


def test_command_refuses_a_wrong_artefact_and_still_times_the_right_ones(
    mutate: Callable[..., Path], tmp_path: Path
) -> None:
    def halve(model: object) -> None:
        import onnx
        import onnx.numpy_helper

        assert isinstance(model, onnx.ModelProto)
        last = [node for node in model.graph.node if node.op_type == "Conv"][-1]
        (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == last.input[1]]
        halved = onnx.numpy_helper.to_array(tensor) / np.float16(2)
        tensor.CopyFrom(onnx.numpy_helper.from_array(halved, tensor.name))

    result = invoke(mutate(halve, "model.fp16.onnx"), "--batches", "1", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "out/bench.json").read_text())["rows"]
    status = {row["variant"]["name"]: row["status"] for row in rows}
    assert status["onnx-fp16-onnxruntime-cpu"] == "refused: parity"
    assert status["onnx-fp32-onnxruntime-cpu"] == "measured"
    assert "refused: parity: " in result.stdout


@pytest.mark.slow
def test_command_takes_images_and_folders(tiny_bundle: Bundle, tiny_data: Path, tmp_path: Path) -> None:
    folder = tiny_data / "brain/images"
    arguments = ("--images", folder, "--max-images", "3", "--batches", "1", "--out", tmp_path)
    result = invoke(tiny_bundle.root, *arguments)
    assert result.exit_code == 0, result.output
    images = json.loads((tmp_path / "bench.json").read_text())["images"]
    assert [Path(image["name"]).name for image in images] == ["0.png", "1.png", "2.png"]
    with pytest.raises(InputError, match="is not a file, expected an image or a folder"):
        file_inputs([tmp_path / "absent.png"], 0)


@pytest.mark.parametrize("text", ["", "0", "1,1", "a", "4,-1"])
def test_bad_batches_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected different positive numbers such as 1,4"):
        parse_numbers("batches", text)


def test_seven_rounds_are_refused(tiny_bundle: Bundle) -> None:
    result = invoke(tiny_bundle.root, "--rounds", "7")
    assert isinstance(result.exception, InputError)
    assert "rounds is 7, expected at least 8" in str(result.exception)


@pytest.mark.slow
@pytest.mark.process
def test_a_device_needs_no_torch(tiny_bundle: Bundle, tmp_path: Path) -> None:
    """Both commands without a run, with few conformance files, in a fresh interpreter that has neither torch
    nor onnx."""
    code = f"""
import sys
sys.modules["torch"] = sys.modules["onnx"] = sys.modules["matplotlib"] = None
from click.testing import CliRunner
from tumorseg_benchmarks.commands.bench import bench
from tumorseg_benchmarks.commands.parity import parity
from tumorseg_benchmarks.parity import parity as module
check = module.check_conformance
module.check_conformance = lambda *of, full, **more: check(*of, full=False, **more)
places = ["--out", {str(tmp_path)!r}, "--device-folder", {str(tmp_path / "device")!r}]
quick = ["--batches", "1", "--threads", "1", "--rounds", "8", "--no-cold"]
for command, extra in ((parity, []), (bench, quick)):
    result = CliRunner().invoke(command, [{str(tiny_bundle.root)!r}, *places, *extra])
    assert result.exit_code == 0, result.output
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    values = json.loads((tmp_path / "bench.json").read_text())
    assert values["work"] == {"reason": "onnx is not installed (extra export)"}


@pytest.mark.slow
def test_a_rate_is_run_and_searched(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tumorseg_benchmarks.commands import bench_rate

    monkeypatch.setattr(bench_rate, "LEAST_TRIAL_S", 0.3)
    given = ("--rate", "8", "--seconds", "2", "--backend", "onnxruntime", "--out", tmp_path, "--json")
    result = invoke(tiny_bundle.root, *given, short=())
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values == json.loads((tmp_path / "rate.json").read_text())
    schema = json.loads((Path(__file__).parents[3] / "docs/schemas/rate.schema.json").read_text())
    assert set(schema["required"]) <= set(values)
    assert set(schema["properties"]["run"]["required"]) == set(values["run"])
    assert set(schema["properties"]["highest"]["required"]) == set(values["highest"])
    run = values["run"]
    assert run["frames"] == 16 == run["judged"] + run["failed"] + run["dropped"]
    assert run["delay_ms"]["p99"] is None
    assert "too few frames for p90, p99, p99.9" in (tmp_path / "rate.md").read_text()
    assert result.stderr.splitlines()[-1].startswith(f"{tiny_bundle.root}: 8 frames/s ")
