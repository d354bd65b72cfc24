"""`tumorseg predict --resume`: what is done again, and what ends a run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import Result

from tumorseg_runtime import Prediction, Segmenter
from tumorseg_runtime.backends.onnxruntime import OnnxRuntimeSession
from tumorseg_runtime.cli.predict import LOCK
from tumorseg_runtime.core.errors import BackendError, CheckFailedError, InputError
from tumorseg_runtime.core.files import locked
from tumorseg_runtime.images.frame import Frame
from tumorseg_runtime.images.read import write_png

Scene = Callable[..., npt.NDArray[np.uint8]]
Maker = Callable[..., Path]
Run = Callable[..., Result]


def spy_on_scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    judged: list[str] = []
    decide = Segmenter.decide

    def noted(self: Segmenter, frame: Frame, logits: Any) -> Prediction:
        judged.append(Path(frame.name).name)
        return decide(self, frame, logits)

    monkeypatch.setattr(Segmenter, "decide", noted)
    return judged


def test_resume_does_only_what_is_missing(
    run_predict: Run,
    small_bundle: Path,
    image_folder: Path,
    tmp_path: Path,
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    (image_folder / "b/0.png").write_bytes(b"not an image")
    run_predict(small_bundle, image_folder, "--out", out)
    whole = json.loads((out / "predictions.json").read_text())
    judged = spy_on_scored(monkeypatch)
    again = run_predict(small_bundle, image_folder, "--out", out, "--resume")
    assert judged == []  # the failed file is tried again, and fails
    assert "3 of 4 files are done already" in again.output
    assert isinstance(again.exception, CheckFailedError)
    assert json.loads((out / "predictions.json").read_text()) == whole
    write_png(image_folder / "b/0.png", scene(30, 30))
    (out / "masks/a__1.png").unlink()
    write_png(image_folder / "b/2.png", scene(50, 60))  # changed since
    assert run_predict(small_bundle, image_folder, "--out", out, "--resume").exit_code == 0
    assert sorted(judged) == ["0.png", "1.png", "2.png"]
    report = json.loads((out / "predictions.json").read_text())
    assert sorted(Path(entry["image"]).name for entry in report["images"]) == [
        "0.png",
        "1.png",
        "1.png",
        "2.png",
    ]
    assert report["failed"] == []
    assert (out / "masks/a__1.png").is_file()


def test_resume_with_other_files_keeps_the_earlier_lines(
    run_predict: Run, small_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (image_folder / "a/bad.png").write_bytes(b"not an image")
    run_predict(small_bundle, image_folder / "a", "--out", out)
    report = json.loads((out / "predictions.json").read_text())
    first, failed = report["images"], report["failed"]
    assert [Path(line["file"]).name for line in failed] == ["bad.png"]
    mask = (out / first[0]["masks"]["tumour"]).read_bytes()
    result = run_predict(small_bundle, image_folder / "b", "--out", out, "--resume")
    assert result.exit_code == 0  # what failed is not of this run
    assert "bad.png" not in result.output
    report = json.loads((out / "predictions.json").read_text())
    assert report["failed"] == failed
    both = report["images"]
    assert both[:1] == first
    assert [line["output"] for line in both] == ["1", "b__1", "2"]  # b/1 does not overwrite a/1
    assert (out / first[0]["masks"]["tumour"]).read_bytes() == mask
    log = (out / "predictions.jsonl").read_text()
    (out / "predictions.jsonl").write_text(log.replace('"masks/', f'"{"x" * 300}/'))  # names of no file
    assert run_predict(small_bundle, image_folder / "b", "--out", out, "--resume").exit_code == 0
    both = json.loads((out / "predictions.json").read_text())["images"]
    assert [line["output"] for line in both] == ["b__1", "2"]


@pytest.mark.fault
def test_a_second_run_into_the_same_folder_is_refused(
    run_predict: Run, small_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with locked(out / LOCK, out):
        result = run_predict(small_bundle, image_folder, "--out", out)
    assert isinstance(result.exception, InputError)
    assert f"{out}: process {os.getpid()} is changing it, expected to be alone" in str(result.exception)
    assert not list(out.iterdir())


@pytest.mark.fault
def test_a_killed_run_leaves_a_half_line_and_is_resumed(
    run_predict: Run, small_bundle: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run_predict(small_bundle, image_folder, "--out", out)
    text = (out / "predictions.jsonl").read_text()
    (out / "predictions.json").unlink()
    (out / "predictions.jsonl").write_text(text[: len(text) - 40])
    judged = spy_on_scored(monkeypatch)
    assert run_predict(small_bundle, image_folder, "--out", out, "--resume").exit_code == 0
    assert judged == ["2.png"]
    assert (out / "predictions.jsonl").read_text() == text


@pytest.mark.fault
def test_resume_refuses_other_settings_and_damage(
    run_predict: Run, small_bundle: Path, make_bundle: Maker, image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run_predict(small_bundle, image_folder, "--out", out)
    other = make_bundle(tmp_path / "other", golden_error=0.1)
    for args, differing in (((other,), "bundle"), ((small_bundle, "--probabilities"), "outputs")):
        result = run_predict(*args, image_folder, "--out", out, "--resume")
        assert isinstance(result.exception, InputError)
        assert f"was made with another {differing}, expected the same" in str(result.exception)
    (out / "predictions.jsonl").write_text("{}\n")
    assert "lacks the field settings" in str(
        run_predict(small_bundle, image_folder, "--out", out, "--resume").exception
    )
    assert run_predict(small_bundle, image_folder, "--out", out).exit_code == 0


def test_a_backend_that_fails_again_and_again_ends_the_run(
    run_predict: Run, small_bundle: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise BackendError("the device is gone")

    for index in range(5):
        write_png(image_folder / f"c{index}.png", np.zeros((5, 5), np.uint8))
    monkeypatch.setattr(OnnxRuntimeSession, "infer", die)
    result = run_predict(small_bundle, image_folder, "--out", tmp_path / "out")
    assert isinstance(result.exception, BackendError)
    assert "3 files in a row failed, the rest was not tried: the device is gone" in str(result.exception)
    monkeypatch.undo()
    assert run_predict(small_bundle, image_folder, "--out", tmp_path / "out", "--resume").exit_code == 0
