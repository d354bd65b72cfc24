"""What each epoch leaves, and what is left where a process dies while it writes."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping
from safetensors.torch import load_file

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import TumorsegError
from tumorseg_train.config.recipe import load_recipe
from tumorseg_train.training import checkpointing as module
from tumorseg_train.training.checkpointing import CURVES, RESUME, CheckpointWriter, save_weights, write_csv
from tumorseg_train.training.lightning_module import SegmentationModule
from tumorseg_train.training.train import recipe_callbacks


class Killed(BaseException):
    """What stands for kill -9: nothing of ours may catch it."""


class Training:
    """Lightning's side of a recorder: epochs whose figures the test gives."""

    def __init__(self, out: Path, first: bool = True) -> None:
        self.out = out
        self.said: list[str] = []
        self.recorder = CheckpointWriter(out, self.said.append)
        recipe = dataclasses.replace(load_recipe("quick"), average=0.0)
        self.task = SegmentationModule(torch.nn.Conv2d(3, 1, 1), Contract(64, 64), recipe, steps=1)
        self.trainer: Any = SimpleNamespace(
            max_epochs=9,
            optimizers=[SimpleNamespace(param_groups=[{"lr": 0.25}])],
            is_global_zero=first,
            should_stop=False,
            early_stopping_callback=None,
            save_checkpoint=self.save_checkpoint,
        )

    def save_checkpoint(self, path: Path) -> None:
        self.recorder.on_save_checkpoint(self.trainer, self.task, {"state_dict": self.task.state_dict()})
        path.write_text(json.dumps(self.recorder.state_dict()), encoding="utf-8")

    def epoch(self, number: int, dice: float, loss: float = 0.5) -> None:
        """An epoch, from 1, whose weights all are its number."""
        with torch.no_grad():
            for parameter in self.task.parameters():
                parameter.fill_(number)
        self.trainer.current_epoch = number - 1
        self.trainer.callback_metrics = {
            "train_loss_epoch": torch.tensor(loss),
            "val_loss": torch.tensor(0.25),
            "val_dice": torch.tensor(dice),
        }
        self.recorder.on_train_epoch_end(self.trainer, self.task)


def resumed(out: Path) -> Training:
    """A new process that goes on with what lies in the folder."""
    training = Training(out)
    training.recorder.load_state_dict(json.loads((out / RESUME).read_text(encoding="utf-8")))
    return training


def left(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir())


def epochs_in(path: Path) -> list[int]:
    with path.open(encoding="utf-8", newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def held(path: Path) -> float:
    """The number of the epoch whose weights these are."""
    (value,) = set(load_file(path)["weight"].flatten().tolist())
    return float(value)


def check_whole(out: Path, epoch: int, best: int) -> None:
    """`resume.ckpt` is whole, of this epoch, and the weights that it calls the best are there."""
    training = resumed(out)
    assert training.recorder.rows[-1]["epoch"] == epoch
    assert training.recorder.best_epoch == best
    assert held(training.recorder.best_weights) == best


def test_an_epoch_leaves_curves_best_weights_and_checkpoint(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.epoch(1, 0.5)
    assert left(tmp_path) == [CURVES, "epoch-0001.safetensors", RESUME]
    training.epoch(2, 0.75)
    assert left(tmp_path) == [CURVES, "epoch-0002.safetensors", RESUME]
    training.epoch(3, 0.625)
    training.epoch(4, 0.75)  # no better than epoch 2
    assert left(tmp_path) == [CURVES, "epoch-0002.safetensors", RESUME]
    check_whole(tmp_path, 4, best=2)
    header, first, *_ = (tmp_path / CURVES).read_text(encoding="utf-8").splitlines()
    assert header == "epoch,train_loss,val_loss,val_dice,learning_rate,seconds"
    assert first.startswith("1,0.5,0.25,0.5,0.25,")
    assert epochs_in(tmp_path / CURVES) == [1, 2, 3, 4]
    assert training.said[1].startswith(
        "epoch 2 of 9: training loss 0.500, validation loss 0.250, Dice 0.750 ("
    )


def test_seconds_count_on_in_a_resumed_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now))
    training = Training(tmp_path)
    now = 160.0
    training.epoch(1, 0.5)
    now = 5000.0  # another process, hours later
    again = resumed(tmp_path)
    now = 5030.0
    again.epoch(2, 0.625)
    assert [row["seconds"] for row in again.recorder.rows] == [60, 90]
    assert again.said[-1].endswith("(90 s)")
    assert epochs_in(tmp_path / CURVES) == [1, 2]


def dies_in_the_checkpoint(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(path: Path) -> None:
        path.write_text('{"rows": [{"epo', encoding="utf-8")
        raise Killed

    training.trainer.save_checkpoint = half


def dies_in_the_weights(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half of it")
        raise Killed

    monkeypatch.setattr(module, "save_file", half)


def dies_in_the_curves(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    class Half(csv.DictWriter):  # type: ignore[type-arg]
        def writerow(self, row: Any) -> None:
            super().writerow(row)
            raise Killed

    monkeypatch.setattr(module.csv, "DictWriter", Half)


def dies_before_the_checkpoint_has_its_name(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def no_further(self: Path, target: Path) -> Path:
        if target.name == RESUME:
            raise Killed
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", no_further)


@pytest.mark.parametrize(
    "death",
    [
        dies_in_the_weights,
        dies_in_the_checkpoint,
        dies_in_the_curves,
        dies_before_the_checkpoint_has_its_name,
    ],
)
def test_a_death_while_writing_loses_the_epoch_and_no_more(
    death: Callable[[Training, pytest.MonkeyPatch], None], tmp_path: Path
) -> None:
    training = Training(tmp_path)
    training.epoch(1, 0.5)
    with pytest.MonkeyPatch.context() as monkeypatch:
        death(training, monkeypatch)
        with pytest.raises(Killed):
            training.epoch(2, 0.75)
    check_whole(tmp_path, 1, best=1)
    assert epochs_in(tmp_path / CURVES) in ([1], [1, 2])  # whole; the curves come before the checkpoint
    again = resumed(tmp_path)
    again.epoch(2, 0.75)
    assert left(tmp_path) == [CURVES, "epoch-0002.safetensors", RESUME]
    check_whole(tmp_path, 2, best=2)
    assert epochs_in(tmp_path / CURVES) == [1, 2]


def test_a_death_before_the_old_weights_are_removed_keeps_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def killed(self: Path, missing_ok: bool = False) -> None:
        if self.name == "epoch-0001.safetensors":
            raise Killed
        unlink(self, missing_ok=missing_ok)  # parts of a write

    training = Training(tmp_path)
    training.epoch(1, 0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(Killed):
            training.epoch(2, 0.75)
    assert left(tmp_path) == [CURVES, "epoch-0001.safetensors", "epoch-0002.safetensors", RESUME]
    check_whole(tmp_path, 2, best=2)
    resumed(tmp_path).epoch(3, 0.25)
    assert left(tmp_path) == [CURVES, "epoch-0002.safetensors", RESUME]


@pytest.mark.fault
def test_half_written_weights_of_an_epoch_that_turns_out_worse_are_removed(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.epoch(1, 0.5)
    with pytest.MonkeyPatch.context() as monkeypatch:
        dies_in_the_weights(training, monkeypatch)
        with pytest.raises(Killed):
            training.epoch(2, 0.75)
    assert left(tmp_path) == [CURVES, "epoch-0001.safetensors", RESUME]
    resumed(tmp_path).epoch(2, 0.25)
    assert left(tmp_path) == [CURVES, "epoch-0001.safetensors", RESUME]


def test_patience_ends_the_training_and_its_resumption(tmp_path: Path) -> None:
    recipe = dataclasses.replace(load_recipe("quick"), average=0.0, patience=2)
    (stopper,) = recipe_callbacks(recipe)
    assert isinstance(stopper, EarlyStopping)
    training = Training(tmp_path)
    training.epoch(1, 0.5)
    training.trainer.early_stopping_callback = stopper
    training.recorder.on_train_start(training.trainer, training.task)
    assert not training.trainer.should_stop
    training.trainer.should_stop = True  # by the callback, before ours
    training.epoch(2, 0.5)
    training.epoch(3, 0.25)
    assert training.said[-1] == "no better Dice in 2 epochs: the training ends here"
    again = resumed(tmp_path)
    again.trainer.early_stopping_callback = stopper
    stopper.load_state_dict({**stopper.state_dict(), "stopped_epoch": 2})
    again.recorder.on_train_start(again.trainer, again.task)
    assert again.trainer.should_stop


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_leaves_the_epoch_before(loss: float, tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.epoch(1, 0.5)
    with pytest.raises(TumorsegError, match=rf"training loss is {loss} in epoch 2, expected a finite number"):
        training.epoch(2, 0.75, loss)
    assert left(tmp_path) == [CURVES, "epoch-0001.safetensors", RESUME]
    check_whole(tmp_path, 1, best=1)


def test_only_the_first_process_writes_and_all_gather(tmp_path: Path) -> None:
    asked: list[Path] = []
    training = Training(tmp_path, first=False)
    training.trainer.save_checkpoint = asked.append
    training.epoch(1, 0.5)
    assert asked == [tmp_path / RESUME]  # Lightning gathers, and writes once
    assert left(tmp_path) == []
    assert training.recorder.best_epoch == 1


def test_tables_and_weights_are_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csv(tmp_path / "a.csv", [{"name": "x", "value": 0.123456789}, {"name": "y", "value": 12345678.0}])
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "name,value\nx,0.123457\ny,1.23457e+07\n"
    with pytest.raises(ValueError, match="fields not in fieldnames"):
        write_csv(tmp_path / "a.csv", [{"name": "z"}, {"other": 1.0}])
    assert (tmp_path / "a.csv").read_text(encoding="utf-8").startswith("name,value\nx,")
    model = torch.nn.Conv2d(3, 1, 1)
    save_weights(model.state_dict(), tmp_path / "w.safetensors")
    before = (tmp_path / "w.safetensors").read_bytes()
    assert torch.equal(load_file(tmp_path / "w.safetensors")["weight"], model.weight)
    dies_in_the_weights(Training(tmp_path), monkeypatch)
    with pytest.raises(Killed):
        save_weights(torch.nn.Conv2d(3, 1, 1).state_dict(), tmp_path / "w.safetensors")
    assert (tmp_path / "w.safetensors").read_bytes() == before
