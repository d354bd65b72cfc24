"""The runtime's figures: that each counts what it says. How large they are is for a quiet machine to tell."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tumorseg_benchmarks.latency.latency import Sample, TimingPlan
from tumorseg_benchmarks.reports.figure import STAGE, Figure, Target, ratio, timed
from tumorseg_benchmarks.reports.report import figures_table
from tumorseg_benchmarks.runtime_checks import __main__ as runtime_figures
from tumorseg_benchmarks.runtime_checks import end_to_end, memory, preprocessing, start_up, throughput
from tumorseg_benchmarks.runtime_checks.end_to_end import measure_end_to_end
from tumorseg_benchmarks.runtime_checks.install_size import closure, measure_install
from tumorseg_benchmarks.runtime_checks.memory import measure_growth, measure_peak
from tumorseg_benchmarks.runtime_checks.preprocessing import (
    albumentations_steps,
    as_written,
    measure_preprocessing,
    tuned,
)
from tumorseg_benchmarks.runtime_checks.scenes import encoded, scene
from tumorseg_benchmarks.runtime_checks.start_up import measure_imports
from tumorseg_benchmarks.runtime_checks.throughput import measure_throughput
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BackendError, CheckFailedError, InputError, OutputError
from tumorseg_runtime.images.read import decode_image
from tumorseg_runtime.processing.preprocess import Preprocessor

PLAN = TimingPlan(settle_s=0.0)


def quiet(line: str) -> None:
    """Progress that nobody reads."""


def samples(*ms: float) -> list[Sample]:
    return [Sample(number, 0, {STAGE: one}) for number, one in enumerate(ms)]


def test_a_target_holds_on_its_own_side_and_at_its_limit() -> None:
    most, least = Target(1.1), Target(0.97, at_least=True)
    assert [most.met(value) for value in (1.0, 1.1, 1.11)] == [True, True, False]
    assert [least.met(value) for value in (0.96, 0.97, 1.0)] == [False, True, True]
    assert (str(most), str(least)) == ("at most 1.1", "at least 0.97")


def test_verdicts_and_cells() -> None:
    target = Target(1.2)
    for value, given, verdict in (
        (1.19, target, "met"),
        (1.21, target, "missed"),
        (1.21, None, ""),
        (None, target, "not measured"),
    ):
        figure = Figure("name", value, "ratio", None, given, "note")
        assert figure.to_dict()["verdict"] == verdict
        (cells,) = figures_table([figure]).rows
        assert cells[1] == ("-" if value is None else f"{value:.3f}")
        assert cells[5:] == ("at most 1.2" if given else "-", verdict, "note")


def test_a_ratio_is_paired_by_round() -> None:
    slowing = [1.0, 2, 3, 4, 5, 6, 7, 8]
    figure = ratio("r", samples(*(2 * ms for ms in slowing)), samples(*slowing), Target(1.9))
    assert figure.stats is not None
    assert (figure.value, figure.stats.min, figure.stats.max, figure.verdict) == (2.0, 2.0, 2.0, "missed")


def test_a_timed_call_hands_on_its_round() -> None:
    seen: list[int] = []
    assert timed(seen.append)(7)[STAGE] >= 0
    assert seen == [7]


def test_scenes_have_grain_and_the_sizes_asked_for(tiny_bundle: Bundle) -> None:
    gray = scene(tiny_bundle, 50, 70, colour=False, seed=0)
    colour = scene(tiny_bundle, 50, 70, colour=True, seed=0)
    assert (gray.shape, colour.shape) == ((50, 70), (50, 70, 3))
    assert np.ptp(colour.astype(int), axis=2).any(), "its channels differ"
    np.testing.assert_array_equal(gray, scene(tiny_bundle, 50, 70, colour=False, seed=0))
    assert not np.array_equal(gray, scene(tiny_bundle, 50, 70, colour=False, seed=len(tiny_bundle.golden)))
    for pixels in (gray, colour):
        np.testing.assert_array_equal(decode_image(encoded(pixels), "scene"), pixels)


@pytest.fixture
def small_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(end_to_end, "HEIGHT", 90)
    monkeypatch.setattr(end_to_end, "WIDTH", 120)


def test_end_to_end_has_a_control_gray_and_colour(tiny_bundle: Bundle, small_frame: None) -> None:
    control, gray, colour = measure_end_to_end(tiny_bundle, 1, PLAN, quiet)
    assert (gray.target, colour.target) == (Target(1.06), Target(1.10))
    assert control.target is None
    for figure in (control, gray, colour):
        assert figure.stats is not None
        assert figure.stats.samples == PLAN.rounds
    assert "bare inference" in control.note


def test_end_to_end_is_not_timed_where_the_masks_differ(
    tiny_bundle: Bundle, small_frame: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(end_to_end.RawOnnxRuntime, "run", lambda self, batch: -batch[:, :1])
    with pytest.raises(OutputError, match="give other masks, expected the same"):
        measure_end_to_end(tiny_bundle, 1, PLAN, quiet)


def test_imports_are_timed_in_fresh_interpreters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_up, "OURS", "time.sleep(0.02)")
    monkeypatch.setattr(start_up, "THEIRS", "import sys; assert 'tumorseg_runtime' not in sys.modules")
    (figure,) = measure_imports(PLAN, quiet)
    assert figure.stats is not None
    assert figure.stats.min > 1
    assert figure.verdict == "missed"
    monkeypatch.setattr(start_up, "THEIRS", "import no_such_module")
    with pytest.raises(CheckFailedError, match=r"'import no_such_module' failed .*ModuleNotFoundError"):
        measure_imports(PLAN, quiet)


def test_peak_memory_is_that_of_the_process_that_is_asked(tiny_bundle: Bundle, tmp_path: Path) -> None:
    hoard = f"{memory.READ}\nimport sys\nkept = b'x' * int(sys.argv[1])\nprint(resident('VmHWM'))"
    small, large = (float(memory._run(hoard, size)) for size in (10, 200_000_000))
    assert 190 < large - small < 215
    with pytest.raises(CheckFailedError, match="ZeroDivisionError"):
        memory._run("1 / 0")


def test_peak_and_growth_run_the_segmenter_and_a_bare_session(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen = memory._run, []

    def once(code: str, *arguments: object) -> str:
        """Each code is run once; its later rounds get the same answer."""
        if code not in answers:
            answers[code] = run(code, *arguments)
        seen.append(code)
        return answers[code]

    answers: dict[str, str] = {}
    monkeypatch.setattr(memory, "_run", once)
    monkeypatch.setattr(memory, "WARM_UP", 10)
    (peak,) = measure_peak(tiny_bundle, 1, quiet)
    assert seen[:2] == [memory.OURS, memory.BARE]
    ours, raw = (float(answers[code]) for code in (memory.OURS, memory.BARE))
    assert peak.value == pytest.approx(ours / raw)
    assert (peak.note, peak.target) == (f"{ours:.0f} MB against {raw:.0f} MB", Target(1.10))
    (growth,) = measure_growth(tiny_bundle, 1, 20, quiet)
    assert seen[-1] == memory.GROWTH
    assert [number for number, _ in json.loads(answers[memory.GROWTH])] == [0, 10, 20]
    assert growth.unit == "MB per 1,000"


def test_growth_is_the_slope_after_the_warm_up(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    leak = [[number, 300 if number < 500 else 100 + 0.004 * number] for number in range(0, 2500, 10)]
    monkeypatch.setattr(memory, "_run", lambda *_: json.dumps(leak))
    (figure,) = measure_growth(tiny_bundle, 1, 2000, quiet)
    assert figure.value == pytest.approx(4.0)
    assert figure.verdict == "missed"
    assert figure.note == "102.0 MB at prediction 500, 110.0 MB at the end"


def test_throughput_counts_every_file_once(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    predict_each = throughput.Segmenter.predict_each

    def noted(self: object, images: list[Path], **options: object) -> object:
        read.extend(Path(image).name for image in images)
        return predict_each(self, images, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(throughput.Segmenter, "predict_each", noted)
    batches, singles = measure_throughput(tiny_bundle, 1, 20, PLAN, quiet)
    timed_files = read[-16:]  # what came before was the warm-up
    assert sorted(timed_files) == sorted(f"{index}.png" for index in range(16))
    assert batches.target == Target(0.97, at_least=True)
    assert singles.target is None
    assert batches.note.startswith("16 files, ")
    with pytest.raises(InputError, match="files is 7, expected at least 8"):
        measure_throughput(tiny_bundle, 1, 7, PLAN, quiet)


def test_the_rivals_of_preprocessing_do_the_same_work(tiny_bundle: Bundle) -> None:
    contract = tiny_bundle.contract
    for colour in (False, True):
        image = scene(tiny_bundle, 90, 120, colour=colour, seed=0)
        ours = Preprocessor(contract)(image)
        step = 2 / 255 / min(contract.std)  # the resize of OpenCV may differ by a gray level
        for rival in (as_written, tuned):
            np.testing.assert_allclose(rival(contract)(image), ours, atol=step)
        if importlib.util.find_spec("albumentations"):
            theirs = np.asarray(albumentations_steps(contract)(image))
            np.testing.assert_allclose(theirs, ours, atol=step)


def test_preprocessing_is_compared_at_every_size(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preprocessing, "FRAME", (90, 120))
    monkeypatch.setattr(preprocessing, "SIZES", ((64, 64), (90, 120)))
    monkeypatch.setattr(preprocessing.importlib.util, "find_spec", lambda name: None)
    figures = measure_preprocessing(tiny_bundle, PLAN, quiet)
    assert [(figure.name, figure.value is not None) for figure in figures] == [
        ("64x64 gray: times faster than cv2.resize + numpy", True),
        ("64x64 gray: times faster than cv2.resize + numpy in place", True),
        ("90x120 gray: times faster than cv2.resize + numpy", True),
        ("90x120 gray: times faster than cv2.resize + numpy in place", True),
        ("1080x1920 gray: times faster than Albumentations", False),
        ("64x64 RGB: times faster than cv2.resize + numpy", True),
        ("64x64 RGB: times faster than cv2.resize + numpy in place", True),
        ("90x120 RGB: times faster than cv2.resize + numpy", True),
        ("90x120 RGB: times faster than cv2.resize + numpy in place", True),
        ("1080x1920 RGB: times faster than Albumentations", False),
    ]
    assert {figure.target for figure in figures if figure.name.endswith("numpy")} == {
        Target(1.0, at_least=True)
    }
    gray = SimpleNamespace(contract=Contract(height=64, width=64, mean=(0.5,), std=(0.5,)))
    with pytest.raises(InputError, match="takes 1 channels, expected 3"):
        measure_preprocessing(gray, PLAN, quiet)  # type: ignore[arg-type]


def test_the_installation_is_what_the_runtime_needs_and_nothing_of_training() -> None:
    names = closure("tumorseg", "cpu")
    assert {"tumorseg", "numpy", "opencv-python-headless", "click", "onnxruntime"} <= set(names)
    assert not {"torch", "onnx", "albumentations", "matplotlib"} & set(names)
    total, *packages = measure_install()
    assert total.value == pytest.approx(sum(figure.value or 0 for figure in packages))
    sizes = {figure.name: figure.value or 0 for figure in packages}
    assert list(sizes.values()) == sorted(sizes.values(), reverse=True)
    assert sizes["numpy"] > 5


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    requires = importlib.metadata.requires

    def without_click(name: str) -> list[str] | None:
        if name == "click":
            raise importlib.metadata.PackageNotFoundError(name)
        return requires(name)

    monkeypatch.setattr(importlib.metadata, "requires", without_click)
    with pytest.raises(BackendError, match=r"click is not installed, expected it with tumorseg\[cpu\]"):
        measure_install()


def invoke(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        runtime_figures.main([str(argument) for argument in arguments])
    code = ended.value.code
    assert isinstance(code, int)
    return code


def test_command_writes_the_sections_that_were_asked_for(
    tiny_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--quick", "--only", "install", "--only", "throughput", "--threads", "1", "--out", tmp_path)
    assert invoke(tiny_bundle.root, *arguments) == 0
    values = json.loads((tmp_path / "runtime-figures.json").read_text())
    assert list(values["sections"]) == ["throughput", "install"]
    assert values["bundle"]["sha256"] == tiny_bundle.digest()
    assert values["plan"] == {"rounds": 8, "files": 16, "predictions": 200, "threads": 1}
    first = values["sections"]["throughput"][0]
    assert first["stats"]["samples"] == 8
    assert first["verdict"] in ("met", "missed")
    page, printed = (tmp_path / "runtime-figures.md").read_text(), capsys.readouterr().out
    for text in (page, printed):
        assert "predict / bare loop in batches of 4" in text
        assert "opencv-python-headless" in text


def test_command_prints_json(tiny_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(tiny_bundle.root, "--only", "install", "--out", tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "runtime-figures.json").read_text())


def test_command_reports_an_error_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(tmp_path / "nothing") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "has no bundle.json" in line


def test_every_section_has_its_measure() -> None:
    """What the command does not know would raise only after minutes."""
    import inspect

    code = inspect.getsource(runtime_figures.figures.callback or sys)
    assert all(f'"{section}": ' in code for section in runtime_figures.SECTIONS)
