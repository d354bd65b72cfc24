"""From a benchmark to what `backend="auto"` takes: the fastest that is right, never a faster wrong one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click.testing
import numpy as np
import pytest

from fakes.session import FakeSession
from tumorseg_benchmarks.commands.bench import bench
from tumorseg_benchmarks.commands.parity import parity
from tumorseg_benchmarks.latency.latency import LatencyStats
from tumorseg_benchmarks.latency.ranking import make_ranking_folder, ranking_entries, ranking_line
from tumorseg_benchmarks.latency.rows import BenchRow
from tumorseg_benchmarks.variants.variants import VARIANTS, Variant
from tumorseg_runtime import Segmenter
from tumorseg_runtime.backends import selection as auto_module
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.session import Session, SessionInfo
from tumorseg_runtime.device.cache import RANKING, beside, in_cache, read_ranking, write_ranking
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.compare import ImageParity, ParityReport

if TYPE_CHECKING:
    pass

BY_NAME = {variant.name: variant for variant in VARIANTS}
ONNX, FP16 = BY_NAME["onnx-fp32-onnxruntime-cpu"], BY_NAME["onnx-fp16-onnxruntime-cpu"]
NCNN, MNN = BY_NAME["ncnn-fp32-ncnn-cpu"], BY_NAME["mnn-fp32-mnn-cpu"]
RTX, BUILT = BY_NAME["tensorrt-rtx-fp16-tensorrt-cuda"], BY_NAME["engine-fp16-tensorrt-cuda"]


def row(
    variant: Variant, ms: float | None, *, right: bool = True, role: str = "variant", batch: int = 1
) -> BenchRow:
    """A row as the benchmark makes it: compared, and timed where `ms` is given."""
    image = ImageParity("a", 0, 0.0, 0.0, 0.0, 4096, 0, 1.0, () if right else ("a: 9 pixels flipped",))
    report = ParityReport(
        variant.label, variant.engine, variant.device, variant.precision, {}, BUDGETS["fp32"], 1.0, (image,)
    )
    stages = {} if ms is None else {"infer": LatencyStats(ms, ms - 1, ms + 1, ms - 2, ms + 2, 8)}
    status, reason = ("measured", "") if right else ("refused: parity", "a: 9 pixels flipped")
    return BenchRow(
        variant, variant.label, role, batch, status, reason, 1, {variant.engine: "1"}, report, stages=stages
    )


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_entries_are_what_was_compared_here_at_batch_1() -> None:
    absent = dataclasses.replace(row(RTX, None), parity=None, status="not measured", reason="no driver")
    entries = ranking_entries(
        [
            row(BY_NAME["module-fp32-pytorch-cpu"], 90.0, role="reference"),
            row(ONNX, 50.0),
            row(ONNX, 49.0, role="control"),
            row(NCNN, 40.0),
            row(NCNN, 1.0, batch=4),
            row(MNN, None, right=False),
            absent,
        ],
        threads=2,
    )
    assert [(e.backend, e.parity, e.median_s, e.detail) for e in entries] == [
        ("ncnn", "passed", 0.04, "39.0 to 41.0 ms, quartiles of 8 rounds, 2 threads"),
        ("onnxruntime", "passed", 0.05, "49.0 to 51.0 ms, quartiles of 8 rounds, 2 threads"),
        ("mnn", "refused", None, "a: 9 pixels flipped"),
    ]
    assert {(e.device, e.precision, e.batch) for e in entries} == {("cpu", "fp32", 1)}
    assert entries[0].versions == {"ncnn": "1"}
    assert ranking_line(entries) == (
        "ncnn cpu fp32 40.0 ms, onnxruntime cpu fp32 50.0 ms; 1 not fit to serve"
    )


def test_what_breaks_a_budget_is_listed_without_a_time() -> None:
    entries = ranking_entries(
        [row(ONNX, 50.0), row(NCNN, 40.0)], 1, {NCNN.name: "size 9 MB, expected at most 5"}
    )
    assert [(e.backend, e.median_s) for e in entries] == [("onnxruntime", 0.05), ("ncnn", None)]
    assert entries[1].detail == "over budget: size 9 MB, expected at most 5"


def test_a_time_of_a_wrong_artefact_is_never_written() -> None:
    """Not even where a row held one."""
    (entry,) = ranking_entries([row(MNN, 0.1, right=False)], threads=1)
    assert (entry.parity, entry.median_s) == ("refused", None)
    assert ranking_line([entry]) == "nothing may serve; 1 not fit to serve"


@pytest.mark.parametrize("turned", [False, True])
def test_an_engine_of_this_device_hides_the_bundles_own(turned: bool) -> None:
    rows = [row(RTX, 3.0), row(BUILT, 4.0)]
    (entry,) = ranking_entries(rows[::-1] if turned else rows, threads=1)
    assert (entry.backend, entry.median_s) == ("tensorrt", 0.004)
    assert entry.detail == "3.0 to 5.0 ms, quartiles of 8 rounds"


def test_auto_takes_the_fastest_that_is_right(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def open_session(bundle: Bundle, *, backend: str, device: str, precision: str, **_: object) -> Session:
        opened.append(backend)
        session = FakeSession()
        session.info = SessionInfo(backend, device, precision, {backend: "1"})
        return session

    monkeypatch.setattr(auto_module, "open_session", open_session)
    folder = in_cache(tiny_bundle)
    rows = [row(ONNX, 50.0), row(MNN, 1.0, right=False), row(NCNN, 40.0), row(FP16, 60.0)]
    write_ranking(folder, tiny_bundle, ranking_entries(rows, threads=1))
    info = Segmenter.open(tiny_bundle, backend="auto").info
    assert (info.backend, opened) == ("ncnn", ["ncnn"])
    assert "not chosen: mnn cpu fp32: slower" in info.choice  # it has no time and stands last
    assert Segmenter.open(tiny_bundle, backend="auto", precision="fp16").info.precision == "fp16"


def variants_of(bundle: Bundle) -> set[str]:
    forms = {(artefact.format, artefact.precision) for artefact in bundle.artefacts}
    if ("mnn", "fp32") in forms:
        forms.add(("mnn-exact", "fp32"))
    return {one.name for one in VARIANTS if (one.format, one.precision) in forms and one.device == "cpu"}


@pytest.mark.slow
def test_parity_judges_every_artefact_under_every_backend(full_bundle: Bundle, tmp_path: Path) -> None:
    result = click.testing.CliRunner().invoke(
        parity, [str(full_bundle.root), "--out", str(tmp_path), "--device-folder", str(tmp_path / "device")]
    )
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "parity.json").read_text())["rows"]
    passed = {(one["variant"], one["batch"]) for one in rows if one["status"] == "passed"}
    deploy = {one["variant"] for one in rows if "deploy" in one["format"]}
    assert len(deploy) == 2
    assert passed == {(name, batch) for name in variants_of(full_bundle) | deploy for batch in (1, 4)}


def quick_bench(root: Path, out: Path, *more: str | Path) -> click.testing.Result:
    """One image, one thread, as few rounds as are allowed."""
    arguments = [root, "--batches", "1", "--threads", "1", "--rounds", "8", "--no-cold", "--out", out, *more]
    return click.testing.CliRunner().invoke(bench, [str(argument) for argument in arguments])


def test_command_ranks_and_auto_follows(full_bundle: Bundle, tmp_path: Path) -> None:
    result = quick_bench(full_bundle.root, tmp_path / "out", "--rank", "--device-folder", tmp_path / "device")
    assert result.exit_code == 0, result.output
    assert f"ranking: {tmp_path / 'device' / RANKING}: " in result.stderr
    rows = json.loads((tmp_path / "out/bench.json").read_text())["rows"]
    measured = {one["variant"]["name"]: one for one in rows if one["status"] == "measured"}
    assert set(measured) == variants_of(full_bundle)
    ranking = read_ranking(tmp_path / "device", full_bundle)
    assert ranking is not None
    assert len(ranking.entries) == len(measured)
    medians = [
        one["stages"]["infer"]["median"] / 1000 for one in rows if one["stages"] and one["role"] != "control"
    ]
    assert sorted(entry.median_s or 0 for entry in ranking.entries) == sorted(medians)
    later = [entry.median_s or 0 for entry in ranking.entries[1:]]
    assert later == sorted(later)  # the first may be a more exact one that is as fast
    first = ranking.entries[0]
    info = Segmenter.open(full_bundle, backend="auto", device_folder=tmp_path / "device").info
    assert (info.backend, info.device, info.precision) == (first.backend, first.device, first.precision)
    assert info.choice[0].startswith(f"chosen: {first.backend} cpu {first.precision}: number 1 of ")


@pytest.mark.slow
def test_command_lists_a_wrong_artefact_as_refused_and_auto_passes_it_over(
    mutate: Callable[..., Path], tmp_path: Path
) -> None:
    def lose_the_last_convolution(model: object) -> None:
        import onnx
        import onnx.numpy_helper

        assert isinstance(model, onnx.ModelProto)
        last = [node for node in model.graph.node if node.op_type == "Conv"][-1]
        (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == last.input[1]]
        lost = np.zeros_like(onnx.numpy_helper.to_array(tensor))
        tensor.CopyFrom(onnx.numpy_helper.from_array(lost, tensor.name))

    root = mutate(lose_the_last_convolution, "model.fp16.onnx")
    result = quick_bench(root, tmp_path / "out", "--rank")
    assert result.exit_code == 0, result.output
    bundle = Bundle.open(root)  # the ranking lies beside it and broke no seal
    ranking = read_ranking(beside(bundle), bundle)
    assert ranking is not None
    assert [(e.precision, e.parity, e.median_s is None) for e in ranking.entries] == [
        ("fp32", "passed", False),
        ("fp16", "refused", True),
    ]
    assert "logit error" in ranking.entries[1].detail
    assert Segmenter.open(bundle, backend="auto").info.precision == "fp32"


@pytest.mark.slow
def test_without_the_flag_nothing_is_written_beside_the_bundle(tiny_bundle: Bundle, tmp_path: Path) -> None:
    result = quick_bench(tiny_bundle.root, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert not beside(tiny_bundle).parent.exists()


def test_a_ranking_needs_batch_1_and_a_folder_before_anything_is_timed(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "tumorseg_benchmarks.commands.bench.run_bench"
    monkeypatch.setattr(module, lambda *_, **__: pytest.fail("it was timed"))
    blocked = tmp_path / "file"
    blocked.write_text("")
    for arguments, message in (
        (["--batches", "4"], "batches is '4', expected 1 among them for --rank"),
        (["--device-folder", str(blocked)], "the folder cannot be made"),
    ):
        result = click.testing.CliRunner().invoke(bench, [str(tiny_bundle.root), "--rank", *arguments])
        assert isinstance(result.exception, InputError)
        assert message in str(result.exception)


def test_the_folder_that_is_there_is_used_again(tiny_bundle: Bundle, tmp_path: Path) -> None:
    in_cache(tiny_bundle).mkdir(parents=True)
    assert make_ranking_folder(tiny_bundle, None) == in_cache(tiny_bundle)
    assert make_ranking_folder(tiny_bundle, tmp_path / "mine") == tmp_path / "mine"
