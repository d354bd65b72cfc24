"""A worker of many, without the engine that starts it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tumorseg_runtime import Segmenter
from tumorseg_runtime.core.errors import BackendError
from tumorseg_runtime.outputs.image_results import Outputs
from tumorseg_runtime.outputs.worker import TRIES, Job, Worker, job_of, tasks_of

OPENING: dict[str, Any] = {
    "backend": "onnxruntime", "device": None, "precision": None, "threads": 1, "batch_size": 1,
    "preprocess": None, "logits": False,
}  # fmt: skip


@pytest.fixture
def job(small_bundle: Path, tmp_path: Path) -> Job:
    out = tmp_path / "shared"
    out.mkdir()
    with Segmenter.open(small_bundle) as segmenter:
        made = job_of(small_bundle, segmenter, Outputs(out, True, False), OPENING, [], batch=1, timeout=None)
    (out / made.token).touch()
    return made


def test_its_lines_and_pictures_are_those_of_one_machine(
    job: Job, small_bundle: Path, image_folder: Path, tmp_path: Path, run_predict: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(image_folder)
    paths = [Path("a/1.png"), Path("b/2.png"), Path("b/none.png")]
    assert run_predict(small_bundle, *paths, "--out", tmp_path / "alone").exit_code == 1
    tasks = tasks_of(paths, {}, ["1", "2", "none"])
    monkeypatch.chdir(tmp_path)  # a worker runs elsewhere
    worker = Worker(job)
    written = worker(tasks)
    worker.close()
    lines = (tmp_path / "alone" / "predictions.jsonl").read_text().splitlines()[1:]
    assert [json.dumps(one.line) for one in written] == lines
    assert [one.index for one in written] == [0, 1, 2]
    for folder in ("masks", "overlays"):
        for path in (tmp_path / "alone" / folder).iterdir():
            assert (job.out / folder / path.name).read_bytes() == path.read_bytes()


def test_another_folder_and_another_session_are_refused(job: Job) -> None:
    with pytest.raises(BackendError, match="is not the folder of the run on this worker's machine"):
        Worker(dataclasses.replace(job, token="other"))
    other = dataclasses.replace(job.info, versions={"onnxruntime": "0.1"})
    with pytest.raises(BackendError, match=r"expected onnxruntime cpu fp32 \(onnxruntime 0\.1\)"):
        Worker(dataclasses.replace(job, info=other))


def test_what_ends_its_worker_again_and_again_is_an_error(job: Job, image_folder: Path) -> None:
    (task,) = tasks_of([image_folder / "a" / "1.png"], {}, ["1"])
    worker = Worker(job)
    note = job.out / f"{job.token}.7"
    note.write_text("x" * (TRIES - 1))  # as workers leave it that died
    assert "error" not in worker.row(7, [task])[0].line
    assert not note.exists()
    note.write_text("x" * TRIES)
    (one,) = worker.row(7, [task])
    worker.close()
    assert "its worker died 3 times in a row with it in hand" in one.line["error"]
    assert one.line["file"] == task.shown
