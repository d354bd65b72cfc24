"""A training that is killed in the middle of an epoch goes on at the last whole one, to the same bits."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from forked import tumorseg
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.commands.train import train
from tumorseg_train.networks.run import CHECKPOINT, Run

pytestmark = [pytest.mark.slow, pytest.mark.process]

TUMORSEG = [sys.executable, "-c", "from tumorseg_runtime.cli.main import main; main()", "train"]
# Everything that draws: crops, flips, intensities, the order, and the dropout of DeepLabV3.
FLAGS = ["--arch", "deeplabv3", "--encoder", "timm-tf_efficientnet_lite0", "--encoder-weights", "none"]
FLAGS += ["--size", "64", "--recipe", "quick", "--epochs", "2", "--deterministic", "--report", "0"]
for setting in (
    "small_epochs=1",
    "crop=32",
    "crops_per_image=2",
    "average=0.9",
    "brightness=0.2",
    "contrast=0.2",
):
    FLAGS += ["--set", setting]


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs")
    with tumorseg(folder, "train", str(data), "--out", str(folder / "whole"), *FLAGS) as (process, stderr):
        said = stderr.read()
    assert process.exitcode == 0, said
    return Run.open(folder / "whole")


@pytest.fixture(scope="module")
def killed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a training leaves which is killed in its second epoch, after two batches of it."""
    folder = tmp_path_factory.mktemp("runs")
    with tumorseg(folder, "train", str(data), "--out", str(folder / "killed"), *FLAGS) as (process, stderr):
        for line in stderr:
            if line.startswith("epoch 2 of 2, batch 2 of "):
                process.kill()
                break
    assert process.exitcode == -signal.SIGKILL
    return folder / "killed"


@pytest.mark.fault
def test_a_killed_training_ends_with_the_bits_of_an_uninterrupted_one(
    killed: Path, uninterrupted: Run, tmp_path: Path
) -> None:
    killed = Path(shutil.copytree(killed, tmp_path / "killed"))
    rows = (killed / "curves.csv").read_text(encoding="utf-8").splitlines()
    assert [row.partition(",")[0] for row in rows] == ["epoch", "1"]
    # in a process of its own, whose hashes of text and whose addresses are others
    resumed = subprocess.run(
        [*TUMORSEG, "--resume", str(killed), "--report", "0"], check=True, capture_output=True, text=True
    )
    assert "epoch 2 of 2, batch 1 of" in resumed.stderr
    assert "epoch 1 of 2" not in resumed.stderr
    run = Run.open(killed)
    assert run.training["final_weights_sha256"] == uninterrupted.training["final_weights_sha256"]
    assert (killed / CHECKPOINT).read_bytes() == (uninterrupted.root / CHECKPOINT).read_bytes()
    assert run.metrics == uninterrupted.metrics
    whole = torch.load(uninterrupted.root / "resume.ckpt", weights_only=True)
    again = torch.load(killed / "resume.ckpt", weights_only=True)
    for part in ("state_dict", "current_model_state"):  # the weights' average, and the weights themselves
        for name, tensor in whole[part].items():
            assert torch.equal(tensor, again[part][name]), name


def test_the_bits_are_not_equal_by_accident(uninterrupted: Run) -> None:
    """Each epoch draws anew: the training would notice another order, another crop, another dropout."""
    state = torch.load(uninterrupted.root / "resume.ckpt", weights_only=True)
    name = "model.segmentation_head.0.weight"
    assert not torch.equal(state["current_model_state"][name], state["state_dict"][name])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_training_says_so_and_how_to_go_on(
    killed: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    out = Path(shutil.copytree(killed, tmp_path / "stopped"))
    with tumorseg(tmp_path, "train", "--resume", str(out), "--report", "0") as (process, stderr):
        for line in stderr:
            if line.startswith("epoch 2 of 2, batch 2 of "):
                assert process.pid is not None
                os.kill(process.pid, number)
                break
        *_, last = stderr
    assert process.exitcode == status
    expected = f"go on after the last whole epoch: tumorseg train --resume {out}\n"
    assert last == f"stopped by {number.name}: {expected}"


def refusal(*arguments: str) -> str:
    result = CliRunner().invoke(train, list(arguments))
    assert isinstance(result.exception, InputError), result.output
    return str(result.exception)


def test_what_cannot_be_resumed_is_refused(uninterrupted: Run, data: Path, tmp_path: Path) -> None:
    out = str(uninterrupted.root)
    assert "is finished, expected a training that was broken off" in refusal("--resume", out)
    assert "has no plan.json, expected the folder of a training" in refusal("--resume", str(tmp_path))
    assert "got also DATA, --epochs: leave them out" in refusal(str(data), "--resume", out, "--epochs", "9")
    plan = json.loads((uninterrupted.root / "plan.json").read_text(encoding="utf-8"))
    for name in ("split.json", "plan.json"):
        (tmp_path / name).write_bytes((uninterrupted.root / name).read_bytes())
    (tmp_path / "plan.json").write_text(json.dumps({**plan, "data": str(tmp_path)}), encoding="utf-8")
    assert "is missing or changed since the training began" in refusal("--resume", str(tmp_path))
    (tmp_path / "plan.json").write_text(json.dumps({**plan, "schema": 1}), encoding="utf-8")
    assert "schema is 1, expected 2: train anew, from its weights with --init" in refusal(
        "--resume", str(tmp_path)
    )
