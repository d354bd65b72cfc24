"""The benchmark as a whole: on fake sessions with a clock of their own, and on the tiny bundle."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click.testing
import numpy as np
import numpy.typing as npt
import pytest

from tumorseg_benchmarks.bench import Bench, BenchRow, Entrant, enter, fill, find_truth, rank
from tumorseg_benchmarks.commands.bench import bench, parse_batches
from tumorseg_benchmarks.inputs import file_inputs
from tumorseg_benchmarks.latency import Plan, Sample
from tumorseg_benchmarks.parity import Reference, golden_reference
from tumorseg_benchmarks.report import bench_table
from tumorseg_benchmarks.subjects import SUBJECTS, Candidate, Subject
from tumorseg_runtime.backends.fake import FakeSession
from tumorseg_runtime.bundle import Bundle
from tumorseg_runtime.errors import BackendError, InputError, ParityError
from tumorseg_runtime.preprocess import Preprocessor

if TYPE_CHECKING:
    from tumorseg_train.run import Run

FloatArray = npt.NDArray[np.float32]
SUBJECTS_BY_LABEL = {
    label: Subject(label, f"format{index}", "fake", "cpu", "fp32")
    for index, label in enumerate(("reference", "fast", "slow", "wrong", "small", "absent"))
}


class Clock:
    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        self.ns += 1_000_000  # every look at the clock takes a millisecond
        return self.ns


class TimedSession(FakeSession):
    """A fake network that takes a given time per image on the clock."""

    def __init__(self, clock: Clock, ms: float, gain: float = 1.0, max_batch: int | None = None) -> None:
        super().__init__(gain=gain, max_batch=max_batch)
        self.clock, self.ms_per_image = clock, ms

    def infer(self, batch: FloatArray) -> FloatArray:
        self.clock.ns += int(self.ms_per_image * 1e6) * len(batch)
        return super().infer(batch)


@pytest.fixture
def rows(tiny_bundle: Bundle) -> dict[tuple[str, int], BenchRow]:
    """Rows of fake subjects at batch 1 and 4, by label and batch."""
    clock = Clock()
    sessions = {
        "reference": TimedSession(clock, 10),
        "fast": TimedSession(clock, 5),
        "slow": TimedSession(clock, 20),
        "wrong": TimedSession(clock, 1, gain=1.1),
        "small": TimedSession(clock, 8, max_batch=1),
        "absent": None,
    }
    entrants = [
        Entrant(
            Candidate(SUBJECTS_BY_LABEL[label], session, "" if session else "no such device"),
            "reference" if label == "reference" else "subject",
        )
        for label, session in sessions.items()
    ]
    control = Candidate(SUBJECTS_BY_LABEL["reference"], TimedSession(clock, 10))
    entrants.append(Entrant(control, "control"))
    plan = Plan(rounds=9, settle_s=0.0)
    found = Bench(
        tiny_bundle.contract, fake_truth(tiny_bundle), plan, lambda line: None, time.monotonic(), clock
    ).run(entrants, [1, 4])
    return {(row.label, row.batch): row for row in found}


def fake_truth(bundle: Bundle) -> Reference:
    golden = golden_reference(bundle)
    preprocess = Preprocessor(bundle.contract)
    logits = [FakeSession().infer(preprocess(image.pixels())[None])[0] for image in golden.images]
    return dataclasses.replace(golden, logits=tuple(logits))


def test_figures_of_measured_rows(rows: dict[tuple[str, int], BenchRow]) -> None:
    for batch in (1, 4):
        for label, ms, gain in (("reference", 10, None), ("fast", 5, 2), ("slow", 20, 0.5)):
            row = rows[label, batch]
            infer = ms * batch + 1  # the clock's own millisecond
            assert row.status == "measured"
            assert row.stages["infer"].median == pytest.approx(infer)
            assert row.stages["end_to_end"].median == pytest.approx(infer + 3)
            assert row.images_per_second == pytest.approx(1000 * batch / infer)
            assert len(row.samples) == 9
            if gain is None:
                assert row.speed_up is None
            else:
                assert row.speed_up is not None
                assert row.speed_up.median == pytest.approx((10 * batch + 1) / infer)
                assert row.within_noise is False


def test_ranks_leave_out_the_control_and_all_that_was_not_timed(
    rows: dict[tuple[str, int], BenchRow],
) -> None:
    ranks = {label: row.rank for (label, batch), row in rows.items() if batch == 1}
    assert ranks == {
        "fast": 1, "small": 2, "reference": 3, "slow": 4,
        "reference (A/A control)": None, "wrong": None, "absent": None,
    }  # fmt: skip
    control = rows["reference (A/A control)", 1].speed_up
    assert control is not None
    assert control.median == pytest.approx(1)


@pytest.mark.parametrize(
    ("label", "batch", "status", "reason"),
    [
        ("absent", 1, "not measured", "no such device"),
        ("small", 4, "not measured", "takes at most 1 images at once"),
        ("wrong", 1, "refused: parity", "logit error"),
    ],
)
def test_rows_without_figures_have_the_reason_and_no_number(
    rows: dict[tuple[str, int], BenchRow], label: str, batch: int, status: str, reason: str
) -> None:
    row = rows[label, batch]
    assert row.status == status
    assert reason in row.reason
    assert (row.samples, row.stages, row.images_per_second, row.speed_up, row.rank) == (
        (),
        {},
        None,
        None,
        None,
    )
    (cells,) = bench_table([row]).rows
    assert cells[1:-1] == ("-",) * 7
    assert cells[-1] == f"{status}: {row.reason}"


def test_pairs_rank_and_not_medians() -> None:
    """On a machine that slowed down, one subject has the better pairs and the worse median."""

    def row(label: str, role: str, ms: list[float]) -> BenchRow:
        stages = {"decode": 0.0, "preprocess": 0.0, "postprocess": 0.0}
        samples = [Sample(number, 0, {**stages, "infer": one}) for number, one in enumerate(ms)]
        blank = BenchRow(SUBJECTS_BY_LABEL[label], label, role, 1, "measured")
        return fill(blank, samples, reference)

    base = [10.0, 10, 10, 10, 40, 40, 40, 40, 40]
    reference = [Sample(number, 0, {"infer": ms}) for number, ms in enumerate(base)]
    pairs = row("fast", "subject", [5.0, 5, 5, 5, 41, 20, 20, 20, 20])
    median = row("slow", "subject", [12.0, 12, 12, 12, 12, 42, 42, 42, 42])
    assert pairs.stages["infer"].median > median.stages["infer"].median
    first, second, third = rank([median, row("reference", "reference", base), pairs])
    assert [(r.label, r.rank) for r in (first, second, third)] == [
        ("fast", 1),
        ("reference", 2),
        ("slow", 3),
    ]


def test_a_wrong_subject_is_never_timed(tiny_bundle: Bundle) -> None:
    clock = Clock()
    wrong = TimedSession(clock, 1, gain=1.1)
    entrants = [
        Entrant(Candidate(SUBJECTS_BY_LABEL["reference"], TimedSession(clock, 1)), "reference"),
        Entrant(Candidate(SUBJECTS_BY_LABEL["wrong"], wrong), "subject"),
    ]
    plan = Plan(settle_s=0.0)
    Bench(tiny_bundle.contract, fake_truth(tiny_bundle), plan, lambda line: None, 0.0, clock).run(
        entrants, [1]
    )
    assert wrong.batches == [1] * len(tiny_bundle.golden)  # the comparison alone


def test_cpu_and_gpu_are_timed_apart_each_with_its_own_reference_and_control(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    ms = {"absent cpu": None, "cpu": 40, "cpu fp16": 20, "gpu": 4, "gpu fp16": 1}
    subjects = [
        Subject(label, f"f{index}", "fake", "cuda" if "gpu" in label else "cpu", "fp32")
        for index, label in enumerate(ms)
    ]
    order: list[str] = []

    class Noted(TimedSession):
        def __init__(self, label: str) -> None:
            super().__init__(clock, float(ms[label] or 0))
            self.label = label

        def infer(self, batch: FloatArray) -> FloatArray:
            order.append(self.label[:3])
            return super().infer(batch)

    def open_fake(
        subject: Subject, bundle: Bundle, run: Run | None, threads: int | None, device_folder: Path | None
    ) -> Candidate:
        if ms[subject.label] is None:
            return Candidate(subject, None, "no such device")
        return Candidate(subject, Noted(subject.label))

    monkeypatch.setattr("tumorseg_benchmarks.bench.open_candidate", open_fake)
    entrants = enter(tiny_bundle, None, 1, subjects)
    assert [(entrant.label, entrant.role) for entrant in entrants] == [
        ("absent cpu", "subject"),
        ("cpu", "reference"),
        ("cpu (A/A control)", "control"),
        ("cpu fp16", "subject"),
        ("gpu", "reference"),
        ("gpu (A/A control)", "control"),
        ("gpu fp16", "subject"),
    ]
    found = Bench(
        tiny_bundle.contract, fake_truth(tiny_bundle), Plan(settle_s=0.0), lambda line: None, 0.0, clock
    ).run(entrants, [1])
    assert "".join(order).count("cpugpu") == 1, "no GPU subject runs before the last CPU subject is done"
    rows = {row.label: row for row in found}
    assert (rows["gpu fp16"].rank, rows["gpu"].rank, rows["cpu fp16"].rank) == (1, 2, 1)
    gain = rows["gpu fp16"].speed_up
    assert gain is not None
    assert gain.median == pytest.approx(5 / 2)  # against the GPU's reference; 1 ms is the clock's own
    assert "gpucpu" not in "".join(order)


def test_a_budget_that_cannot_hold_eight_rounds_is_said_and_nothing_is_timed(tiny_bundle: Bundle) -> None:
    clock = Clock()
    entrant = Entrant(Candidate(SUBJECTS_BY_LABEL["reference"], TimedSession(clock, 1)), "reference")
    plan = Plan(budget_s=1e-6)
    (row,) = Bench(
        tiny_bundle.contract, fake_truth(tiny_bundle), plan, lambda line: None, time.monotonic(), clock
    ).run([entrant], [1])
    assert row.status == "not measured"
    assert "8 rounds take about" in row.reason
    assert not row.samples


def test_without_a_run_the_reference_must_reproduce_the_golden_images(tiny_bundle: Bundle) -> None:
    images = golden_reference(tiny_bundle).images
    wrong = Entrant(Candidate(SUBJECTS_BY_LABEL["wrong"], FakeSession()), "reference")
    with pytest.raises(ParityError, match="the reference is wrong, nothing was timed"):
        find_truth([wrong], images, tiny_bundle, None)
    absent = Entrant(Candidate(SUBJECTS_BY_LABEL["absent"], None, "no such device"), "subject")
    with pytest.raises(BackendError, match=r"nothing can run on this CPU \(absent: no such device\)"):
        find_truth([absent], images, tiny_bundle, None)


def invoke(*arguments: str | Path) -> click.testing.Result:
    return click.testing.CliRunner().invoke(bench, ["--threads", "1", *map(str, arguments)])


def test_command_with_a_run_writes_everything(
    tiny_bundle: Bundle, tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tumorseg_benchmarks.subjects.why_no_driver", lambda: "no NVIDIA driver")
    result = invoke(tiny_bundle.root, "--run", tiny_run.root, "--batches", "1,2", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "batch 2: round 8/8" in result.stderr
    values = json.loads((tmp_path / "bench.json").read_text())
    assert values["schema"] == 1
    assert values["bundle"]["sha256"] == tiny_bundle.digest()
    assert values["run"]["checkpoint_sha256"] == tiny_run.checkpoint_sha256
    assert values["reference"]["timed_against"] == "PyTorch eager"
    assert values["plan"] == {
        "batches": [1, 2], "rounds": 8, "threads": 1, "seed": 0, "settle_seconds": 0.05,
        "budget_seconds": None,
    }  # fmt: skip
    assert [image["name"] for image in values["images"]] == [
        item.image for item in tiny_run.manifest().part("test")
    ]
    assert len(values["load_average"]["before"]) == len(values["load_average"]["after"]) == 3
    rows = values["rows"]
    assert len(rows) == 2 * (len(SUBJECTS) + 1)  # and the control
    measured = [row for row in rows if row["status"] == "measured"]
    assert [(row["role"], row["batch"]) for row in measured if row["role"] != "subject"].count(
        ("control", 1)
    ) == 1
    for row in measured:
        assert len(row["samples"]) == 8
        assert set(row["samples"][0]["ms"]) == {"decode", "preprocess", "infer", "postprocess"}
        assert row["parity"]["passed"]
        assert row["stages"]["infer"]["samples"] == 8
        assert (row["speed_up"] is None) == (row["role"] == "reference")
    positions = {tuple(s["position"] for s in row["samples"]) for row in measured if row["batch"] == 1}
    assert len(positions) == 4, "the order within the rounds is drawn anew"
    absent = [row for row in rows if row["status"] == "not measured"]
    others = {"ncnn", "mnn", "mnn-exact", "openvino"}  # not in the default bundle
    assert {row["subject"]["name"] for row in absent} == {
        s.name for s in SUBJECTS if s.group == "gpu" or s.format in others
    }
    for row in absent:
        format, gpu = row["subject"]["format"], row["subject"]["device"] != "cpu"
        missing = f"not exported: the bundle has no fp32 {format} artefact"
        assert row["reason"] == ("no NVIDIA driver" if gpu else missing)
        assert not row["samples"]
    page = (tmp_path / "bench.md").read_text()
    cells = f"| TensorRT engine FP16, of this device |{' - |' * 7} not measured: no NVIDIA driver |"
    assert page.count(cells) == 2
    assert "PyTorch eager against itself:" in page


def test_command_without_a_run_says_what_the_reference_is(tiny_bundle: Bundle, tmp_path: Path) -> None:
    result = invoke(tiny_bundle.root, "--batches", "1", "--out", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values == json.loads((tmp_path / "bench.json").read_text())
    assert values["run"] is None
    assert values["reference"]["timed_against"] == (
        "ONNX FP32, ONNX Runtime CPU (no run was given, so PyTorch was not timed)"
    )
    reasons = {row["subject"]["name"]: row["reason"] for row in values["rows"]}
    assert reasons["module-fp32-pytorch-cpu"] == "no run was given (--run)"
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
    status = {row["subject"]["name"]: row["status"] for row in rows}
    assert status["onnx-fp16-onnxruntime-cpu"] == "refused: parity"
    assert status["onnx-fp32-onnxruntime-cpu"] == "measured"
    assert "refused: parity: " in result.stdout


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
        parse_batches(text)


def test_seven_rounds_are_refused(tiny_bundle: Bundle) -> None:
    result = invoke(tiny_bundle.root, "--rounds", "7")
    assert isinstance(result.exception, InputError)
    assert "rounds is 7, expected at least 8" in str(result.exception)


def test_a_device_needs_no_torch(tiny_bundle: Bundle, tmp_path: Path) -> None:
    """Both commands without a run, in a fresh interpreter: torch, onnx and train are never imported."""
    code = f"""
import sys
from click.testing import CliRunner
from tumorseg_benchmarks.commands.bench import bench
from tumorseg_benchmarks.commands.parity import parity
for command, extra in ((parity, []), (bench, ["--batches", "1", "--threads", "1"])):
    result = CliRunner().invoke(command, [{str(tiny_bundle.root)!r}, "--out", {str(tmp_path)!r}, *extra])
    assert result.exit_code == 0, result.output
heavy = sorted({{"torch", "onnx", "tumorseg_train", "tumorseg_export", "matplotlib"}} & set(sys.modules))
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
