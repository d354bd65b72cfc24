"""Builds by the real TensorRT-RTX, which needs no GPU, and by a fake TensorRT for what a device would do."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from fakes.cuda import FakeDriver
from fakes.tensorrt import FakeTensorRt
from tumorseg_export.bundle.export import export_run
from tumorseg_export.checkpoint.context import ExportContext
from tumorseg_export.engine.tensorrt_build import (
    PROFILE,
    BuildOptions,
    RtxOptions,
    build_engine,
    known_capabilities,
)
from tumorseg_export.onnx import export as onnx_export
from tumorseg_export.targets import onnx_fp16 as fp16
from tumorseg_export.targets import tensorrt_rtx as tensorrt_rtx_export
from tumorseg_export.targets.registry import choose
from tumorseg_export.targets.validate_parity import worst_figures
from tumorseg_runtime.backends.tensorrt import why_unavailable
from tumorseg_runtime.bundle.bundle import Bundle, sha256_of
from tumorseg_runtime.core import progress
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, BundleError, InputError, OutputError
from tumorseg_runtime.core.stop import SIGNALS, Stopped, stoppable
from tumorseg_runtime.device.engines import Profile, read_key
from tumorseg_train.networks.run import Run

CONTRACT = Contract(height=64, width=64)
TARGETS = ["onnx", "onnx-fp16", "tensorrt-rtx"]


def quiet(line: str) -> None:
    """Takes lines of progress that a test does not look at."""


@pytest.fixture
def trt() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (extra tensorrt-rtx)")


@pytest.fixture
def graph(small_context: ExportContext, tmp_path: Path) -> bytes:
    fp16.make(small_context, tmp_path)
    return (tmp_path / fp16.FILE).read_bytes()


@pytest.mark.slow
def test_an_engine_says_what_it_is(trt: Any, small_context: ExportContext, tmp_path: Path) -> None:
    fp16.make(small_context, tmp_path)
    chosen = dataclasses.replace(small_context, rtx=RtxOptions((89, 86), Profile(1, 2, 4)))
    results = tensorrt_rtx_export.make(chosen, tmp_path)
    path = tmp_path / "model.rtx-sm89-sm86.engine"
    key = read_key(path)
    assert (results.artefact.file, results.artefact.format, results.artefact.precision) == (
        path.name, "tensorrt-rtx", "fp16",
    )  # fmt: skip
    assert results.artefact.max_batch == 4
    assert results.artefact.tools == {"tensorrt_rtx": trt.__version__}
    assert key.onnx_sha256 == sha256_of(tmp_path / fp16.FILE)
    assert (key.capabilities, key.profile, key.tool_version) == ((89, 86), Profile(1, 2, 4), trt.__version__)
    assert results.facts["tensorrt-rtx"]["key"] == key.digest()
    json.dumps(results.facts)


@pytest.mark.slow
def test_equal_input_gives_equal_engines_and_other_options_others(trt: Any, graph: bytes) -> None:
    def build(**options: Any) -> bytes:
        chosen = BuildOptions(**{"profile": PROFILE, "capabilities": (86,), **options})
        return build_engine(trt, graph, CONTRACT, chosen, quiet, name="m").data

    first = build()
    assert build() == first
    for options in ({"capabilities": (75,)}, {"profile": Profile(1, 1, 1)}, {"capabilities": (75, 120)}):
        assert build(**options) != first


@pytest.mark.slow
def test_an_fp32_graph_is_built_too(
    trt: Any, small_context: ExportContext, graph: bytes, tmp_path: Path
) -> None:
    onnx_export.make(small_context, tmp_path)
    options = BuildOptions(PROFILE, (86,))
    single = build_engine(trt, (tmp_path / "model.onnx").read_bytes(), CONTRACT, options, quiet, name="m")
    half = build_engine(trt, graph, CONTRACT, options, quiet, name="m")
    assert len(single.data) > 1000
    assert single.data != half.data


@pytest.mark.slow
def test_what_does_not_fit_is_refused(trt: Any, graph: bytes) -> None:
    options = BuildOptions(PROFILE, (86,))
    with pytest.raises(BundleError, match=r"model\.onnx: tensorrt_rtx .* cannot parse it .*whole ONNX file"):
        build_engine(trt, graph[: len(graph) // 2], CONTRACT, options, quiet, name="model.onnx")
    with pytest.raises(BundleError, match=r"model\.onnx: takes and gives .*expected .*\(-1, 3, 64, 96\)"):
        build_engine(trt, graph, Contract(height=64, width=96), options, quiet, name="model.onnx")
    with pytest.raises(InputError, match=r"compute capability 87, 90 is unknown to tensorrt_rtx .*75, 80"):
        build_engine(trt, graph, CONTRACT, BuildOptions(PROFILE, (86, 87, 90)), quiet, name="model.onnx")


@pytest.mark.parametrize(
    ("capabilities", "message"), [((87,), "got 87, expected"), ((), "got none"), ((89, 89), "got 89, 89")]
)
def test_capabilities_are_checked_before_any_work(
    trt: Any, tiny_run: Run, tmp_path: Path, capabilities: tuple[int, ...], message: str
) -> None:
    said: list[str] = []
    with pytest.raises(InputError, match=message):
        export_run(tiny_run, tmp_path / "b", targets=TARGETS, rtx=RtxOptions(capabilities), log=said.append)
    assert said == []


def test_a_missing_package_is_named_with_its_extra(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(BackendError, match=r"tensorrt_rtx cannot be imported .*'tumorseg\[tensorrt-rtx\]'"):
        export_run(tiny_run, tmp_path / "bundle", targets=TARGETS)


def test_the_graph_that_it_is_made_from_must_be_chosen(
    small_context: ExportContext, trt: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="target tensorrt-rtx is made from onnx-fp16: add it to --targets"):
        choose(["onnx", "tensorrt-rtx"])
    with pytest.raises(InputError, match=r"built from model\.fp16\.onnx: add the target onnx-fp16"):
        tensorrt_rtx_export.make(small_context, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(why_unavailable("cuda") is None, reason="this machine can run the engine")
def test_the_bundle_seals_it_as_unverified(trt: Any, tiny_run: Run, tmp_path: Path) -> None:
    bundle = export_run(tiny_run, tmp_path / "bundle", targets=TARGETS)
    artefact = bundle.artefact("tensorrt-rtx", "fp16")
    assert artefact.file == "model.rtx-sm75-sm80-sm86-sm89-sm120.engine"
    (verdict,) = artefact.parity
    assert (verdict.backend, verdict.device, verdict.status) == ("tensorrt", "cuda", "unverified")
    assert verdict.detail == why_unavailable("cuda")
    assert {artefact.file, f"{artefact.file}.json"} < set(bundle.files)
    assert bundle.model["tensorrt-rtx"]["onnx_sha256"] == bundle.files["model.fp16.onnx"].sha256
    assert worst_figures(bundle, artefact) is None
    assert f"| `{artefact.file}` | tensorrt-rtx | fp16 |" in (bundle.root / "MODEL_CARD.md").read_text()
    copied = Path(shutil.copytree(bundle.root, tmp_path / "copy"))
    data = bytearray((copied / artefact.file).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / artefact.file).write_bytes(data)
    with pytest.raises(BundleError, match=r"\.engine has the right size but other content"):
        Bundle.open(copied)


@pytest.mark.slow
def test_a_signal_cancels_a_build_and_is_not_lost(
    trt: Any, graph: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT calls back into Python, and swallows what is raised there."""
    said: list[str] = []

    def signalled(line: str) -> None:
        said.append(line)
        signal.raise_signal(signal.SIGTERM)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    monkeypatch.setattr(progress, "FIRST_S", 0.0)
    with pytest.raises(Stopped), stoppable():
        build_engine(trt, graph, CONTRACT, BuildOptions(PROFILE, (86,)), signalled, name="m")
    for number, handler in before.items():
        signal.signal(number, handler)
    assert len(said) == 1


@pytest.mark.slow
def test_a_log_that_fails_cancels_a_build_and_says_why(
    trt: Any, graph: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(line: str) -> None:
        raise OutputError("standard output is closed")

    monkeypatch.setattr(progress, "FIRST_S", 0.0)
    with pytest.raises(OutputError, match="standard output is closed"):
        build_engine(trt, graph, CONTRACT, BuildOptions(PROFILE, (86,)), closed, name="m")


# What a device's TensorRT is told, seen by a fake one.


def test_tensorrt_is_told_everything_and_ten_has_no_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_S", 0.0)
    trt = FakeTensorRt(FakeDriver())
    said: list[str] = []
    built = build_engine(
        trt, b"onnx", CONTRACT, BuildOptions(Profile(1, 2, 4), workspace_mb=256, timing_cache=b"old"),
        said.append, name="m",
    )  # fmt: skip
    assert trt.calls == [
        ("network", 2), ("clear", "tf32"), ("workspace", 256 * 2**20), ("timing cache", b"old", False),
    ]  # fmt: skip
    assert built.timing_cache == b"old timed"
    assert b"[[1, 3, 64, 64], [2, 3, 64, 64], [4, 3, 64, 64]]" in built.data
    assert said[0] == "Building: 25%, 0 s left"
    del trt.ComputeCapability
    assert known_capabilities(trt) == {}


def test_tensorrt_eleven_has_no_flag_for_what_is_always_so() -> None:
    trt = FakeTensorRt(FakeDriver(), version="11.4.0")
    del trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    del trt.BuilderFlag.TF32
    del trt.IProgressMonitor
    built = build_engine(trt, b"onnx", CONTRACT, BuildOptions(PROFILE), quiet, name="m")
    assert trt.calls == [("network", 0)]
    assert built.timing_cache is None


@pytest.mark.parametrize(
    ("logged", "workspace", "message"),
    [
        ("Error Code 2: OutOfMemory", 64, r"out of memory: .*workspace was 64 MiB: set a smaller --work"),
        ("could not be allocated", None, r"out of memory: could .*workspace was no limit"),
        ("no tactic found", None, r"built no engine \(no tactic found\), expected one: try another version"),
    ],
)
def test_a_build_that_fails_says_why(logged: str, workspace: int | None, message: str) -> None:
    trt = FakeTensorRt(FakeDriver(), fails=logged)
    with pytest.raises(BackendError, match=message):
        build_engine(trt, b"onnx", CONTRACT, BuildOptions(PROFILE, workspace_mb=workspace), quiet, name="m")


def test_a_workspace_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="workspace is 0 MiB, expected 1 or more"):
        BuildOptions(PROFILE, workspace_mb=0)
