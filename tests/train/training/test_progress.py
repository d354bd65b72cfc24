"""What a training says of the time that is left, held against a clock that the test turns."""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.progress import duration
from tumorseg_train.config.recipe import Recipe, load_recipe
from tumorseg_train.data.loader import SplitDataset
from tumorseg_train.training import progress
from tumorseg_train.training.progress import Progress

CPU = dataclasses.replace(load_recipe("cpu"), epochs=18, small_epochs=15)  # 256x256, then 3 of 512x512
BATCHES = 105
SMALL_S = 2.0  # a batch of 8 images at 256x256; one at 512x512 takes four times as long


class Training:
    """Epochs and batches as Lightning would call them, of a machine that is equally fast on every pixel."""

    def __init__(
        self,
        recipe: Recipe,
        monkeypatch: pytest.MonkeyPatch,
        *,
        first: int = 0,
        every: float = 0,
        slowness: float = 1,
        validation_s: float = 0,
        processes: int = 1,
    ) -> None:
        self.recipe, self.first, self.processes = recipe, first, processes
        self.second_per_pixel = slowness * SMALL_S / (8 * 256 * 256)
        self.validation_s = validation_s
        self.now = 1000.0
        self.lines: list[tuple[float, str]] = []
        images = SplitDataset.__new__(SplitDataset)  # it reads nothing; its sizes are asked for
        images.recipe, images.contract = recipe, Contract(512, 512)
        self.images = images
        self.callback = Progress(images, every, lambda line: self.lines.append((self.now, line)))
        monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def run(self) -> dict[tuple[int, int], str]:
        """The lines by (epoch, batch), both from 1."""
        trainer: Any = SimpleNamespace(
            world_size=self.processes, num_training_batches=BATCHES, max_epochs=self.recipe.epochs
        )
        module: Any = None
        self.callback.on_train_start(trainer, module)
        for epoch in range(self.first, self.recipe.epochs):
            trainer.current_epoch = epoch
            self.callback.on_train_epoch_start(trainer, module)
            size = (self.recipe.crop,) * 2 if self.recipe.crop else self.images.size(epoch)
            batch = np.empty((self.recipe.batch_size, 3, *size), np.uint8), None
            for index in range(BATCHES):
                self.now += self.second_per_pixel * 8 * size[0] * size[1]
                self.callback.on_train_batch_end(trainer, module, None, batch, index)
            self.now += self.validation_s
        found = {}
        for _, line in self.lines:
            match = re.match(r"epoch (\d+) of 18, batch (\d+) of 105: ", line)
            assert match, line
            found[int(match[1]), int(match[2])] = line[match.end() :]
        return found


def test_epochs_at_full_size_count_four_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole: 15 * 105 batches of 2 s and 3 * 105 of 8 s."""
    lines = Training(CPU, monkeypatch).run()
    assert len(lines) == 18 * BATCHES
    assert lines[1, 1] == "4.0 images/s, 1 h 34 min left"  # 3148 s + 2520 s
    assert lines[15, 105] == "4.0 images/s, 42 min 0 s left"
    assert lines[16, 1] == "1.0 images/s, 41 min 52 s left"
    assert lines[18, 104] == "1.0 images/s, 8 s left"
    assert lines[18, 105] == "1.0 images/s, 0 s left"


def test_every_line_is_right_on_a_machine_of_even_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(CPU, monkeypatch)
    training.run()
    end = training.now
    for now, line in training.lines:
        assert line.endswith(f" images/s, {duration(end - now)} left")


def test_crops_cost_the_same_in_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(dataclasses.replace(CPU, crop=256), monkeypatch)
    lines = training.run()
    assert lines[1, 1] == "4.0 images/s, 1 h 2 min left"  # 18 * 105 batches of 2 s, less one
    assert lines[18, 104] == "4.0 images/s, 2 s left"


@pytest.mark.parametrize(("first", "left"), [(10, "59 min 28 s"), (15, "41 min 52 s")])
def test_a_resumed_training_counts_what_it_did_itself(
    first: int, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the epochs of the process before it, nor its speed."""
    resumed = Training(CPU, monkeypatch, first=first).run()
    assert min(resumed) == (first + 1, 1)
    assert resumed[first + 1, 1].endswith(f", {left} left")
    assert resumed[18, 104].endswith(", 8 s left")


def test_a_slower_machine_says_so_from_its_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Training(CPU, monkeypatch, first=15, slowness=2).run()
    assert slow[16, 1] == "0.5 images/s, 1 h 23 min left"  # twice 2512 s


def test_validation_is_in_the_time_left_and_not_in_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """After 106 batches in 222 s, 2729 such batches are left: 14 * 105 - 1, and four times 3 * 105."""
    lines = Training(CPU, monkeypatch, validation_s=10).run()
    assert lines[2, 1] == f"4.0 images/s, {duration(2729 * 222 / 106)} left"


def test_images_of_all_processes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Training(CPU, monkeypatch, processes=2).run()
    assert lines[1, 1] == "8.0 images/s, 1 h 34 min left"


def test_a_line_is_said_when_the_last_one_is_long_enough_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(CPU, monkeypatch, every=60)
    training.run()
    times = [now - 1000 for now, _ in training.lines]
    assert times[:4] == [60, 120, 180, 240]
    assert min(np.diff(times)) == 60
    assert max(np.diff(times)) < 60 + 8
    assert Training(CPU, monkeypatch, every=1e9).run() == {}
