"""A damaged checkpoint of a training is one line that names the epoch to go on from, and runs no code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tumorseg_runtime.core.errors import BundleError
from tumorseg_train.training.checkpointing import CURVES, RESUME
from tumorseg_train.training.resumption import PARTS, checkpoint_of

pytestmark = pytest.mark.fault


class Attack:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A training that was broken off in its fifth epoch; the third was the best."""
    out = tmp_path / "run"
    out.mkdir()
    (out / CURVES).write_text("epoch,val_dice\n" + "".join(f"{n},0.5\n" for n in range(1, 5)))
    save_file({"x": torch.arange(5000.0)}, out / "epoch-0003.safetensors")
    callbacks = {"CheckpointWriter": {"rows": [], "best": 0.5, "best_epoch": 3}}
    state = {**dict.fromkeys(PARTS, 0), "state_dict": {"x": torch.arange(5000.0)}, "callbacks": callbacks}
    torch.save(state, out / RESUME)
    return out


def refusal(out: Path) -> str:
    with pytest.raises(BundleError) as caught:
        checkpoint_of(out)
    return str(caught.value)


def test_a_whole_checkpoint_is_taken_and_none_is_none(out: Path) -> None:
    assert checkpoint_of(out) == out / RESUME
    (out / RESUME).unlink()
    assert checkpoint_of(out) is None


def test_damage_names_the_epoch_to_go_on_from(out: Path, tmp_path: Path) -> None:
    path, weights = out / RESUME, out / "epoch-0003.safetensors"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1  # in a tensor: torch itself loads it
    torch.save({"epoch": Attack(tmp_path / "it ran")}, tmp_path / "attack")
    torch.save({"epoch": 1}, tmp_path / "other")
    damages = [whole[: len(whole) * part // 8] for part in range(8)] + [
        bytes(flipped),
        b"[]",
        weights.read_bytes(),
    ]
    damages += [(tmp_path / name).read_bytes() for name in ("attack", "other")]
    for damage in damages:
        path.write_bytes(damage)
        line = refusal(out)
        assert line.startswith(f"{path}: is damaged (")
        assert "expected the state of the training after epoch 4: go on from epoch 3, whose" in line
        assert line.endswith(f"train into another --out, with --init {weights}")
        assert "\n" not in line
    assert not (tmp_path / "it ran").exists()


def test_best_weights_that_are_gone_are_said_before_the_training_goes_on(out: Path) -> None:
    weights = out / "epoch-0003.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    line = refusal(out)
    assert line.startswith(f"{weights}: is missing or damaged, expected the best weights so far")
    assert line.endswith("no weights of an epoch are whole: train anew, into another --out")
    save_file({"x": torch.zeros(1)}, out / "epoch-0002.safetensors")
    assert "go on from epoch 2, whose weights are whole" in refusal(out)
    (out / CURVES).write_bytes(b"\xff")
    (out / RESUME).write_bytes(b"")
    assert "expected the state of the training: go on from epoch 2" in refusal(out)
