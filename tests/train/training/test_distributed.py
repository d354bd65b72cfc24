"""Two processes on one machine train one network, by gloo on the CPU."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tumorseg_runtime.core.errors import TumorsegError
from tumorseg_train.data.loader import EpochSampler
from tumorseg_train.data.phantoms import write_phantoms
from tumorseg_train.networks.run import Run
from tumorseg_train.training.distributed import RANKS, check_equal, is_first, weights_digest

pytestmark = pytest.mark.process

TUMORSEG = [
    sys.executable,
    str(Path(sys.executable).with_name("tumorseg")),
    "train",
]  # Lightning calls it again


@pytest.mark.slow
def test_two_processes_share_the_images_and_end_with_equal_weights(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    write_phantoms(data, brain=14, breast=24, seed=3)
    command = [*TUMORSEG, str(data), "--out", str(out), "--devices", "2", "--deterministic", "--report", "0"]
    command += ["--arch", "unet", "--encoder", "timm-tf_efficientnet_lite0", "--encoder-weights", "none"]
    command += ["--size", "64", "--recipe", "quick", "--epochs", "2", "--batch-size", "4"]
    for setting in ("crop=32", "crops_per_image=2", "average=0.9", "validation_images=7"):
        command += ["--set", setting]
    environment = {name: value for name, value in os.environ.items() if name not in (*RANKS, "WORLD_SIZE")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = Run.open(out)
    images = run.data["images"]["train"] * 2
    batches = images // 2 // 4  # of each process
    assert run.training["steps"] == 2 * batches
    assert f"epoch 2 of 2, batch {batches} of {batches}" in done.stderr
    assert len(re.findall("^epoch 2 of 2: ", done.stderr, re.MULTILINE)) == 1  # one process speaks
    digests = run.training["final_weights_sha256"]
    assert len(digests) == 2
    assert digests[0] == digests[1]
    kept = torch.load(out / "resume.ckpt", weights_only=True)["state_dict"]
    average = {name.removeprefix("model."): value for name, value in kept.items()}
    final = run.model()
    final.load_state_dict({name: average[name] for name in final.state_dict()})
    assert weights_digest(final) == digests[0]  # of the weights that were trained, not of nothing
    assert json.loads((out / "plan.json").read_text(encoding="utf-8"))["devices"] == 2


def test_processes_get_different_positions_and_equally_many() -> None:
    shares = []
    for rank in range(3):
        sampler = EpochSampler(50, seed=4, rank=rank, processes=3)
        sampler.set_epoch(2)
        shares.append([position for _, position in sampler])
        assert len(shares[-1]) == len(sampler) == 16
    assert len({position for share in shares for position in share}) == 48


def test_different_weights_are_an_error() -> None:
    first, second = torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(3, 4, 1)
    assert weights_digest(first) != weights_digest(second)
    second.load_state_dict(first.state_dict())
    assert weights_digest(first) == weights_digest(second)
    check_equal(["a", "a"])
    with pytest.raises(TumorsegError, match="process 1 of 3 has other weights than process 0"):
        check_equal(["a", "b", "b"])


def test_one_process_of_all_machines_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    assert is_first()
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("NODE_RANK", "1")
    assert not is_first()
