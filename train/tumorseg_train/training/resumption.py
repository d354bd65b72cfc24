"""What a broken-off training goes on with, checked before Lightning reads it: bad disks leave half files."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path
from typing import Any

import torch

from tumorseg_runtime.core.errors import BundleError, InputError
from tumorseg_train.networks.weights_file import UNREADABLE, read_state_dict
from tumorseg_train.training.checkpointing import CURVES, RESUME, CheckpointWriter

PARTS = ("epoch", "state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks")


def checkpoint_of(out: Path) -> Path | None:
    """The checkpoint in a run's folder, whole; None where no epoch was whole yet.

    Raises BundleError where it is damaged, or the best weights that it names are: the line says from which
    epoch on the training can be continued.
    """
    path = out / RESUME
    if not path.exists():
        return None
    try:
        best = int(_read(path)["callbacks"][CheckpointWriter.__name__]["best_epoch"])
    except Exception as error:  # torch raises many kinds for a damaged file
        raise BundleError(
            f"{path}: is damaged ({type(error).__name__}), expected the state of the training"
            f"{_last_epoch(out)}: {_way_on(out)}"
        ) from error
    recorder = CheckpointWriter(out, print)
    recorder.best_epoch = best
    weights = recorder.best_weights
    if not _is_whole(weights):
        raise BundleError(
            f"{weights}: is missing or damaged, expected the best weights so far, which {RESUME} goes on "
            f"with: {_way_on(out)}"
        )
    return path


def _read(path: Path) -> dict[str, Any]:
    """The content of a whole checkpoint; raises whatever tells that it is none."""
    with zipfile.ZipFile(path) as archive:
        if name := archive.testzip():  # torch does not look at the checksums
            raise ValueError(name)
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if missing := [name for name in PARTS if name not in state]:
        raise KeyError(*missing)
    return state


def _last_epoch(out: Path) -> str:
    """Which epoch the curves end with, in words; '' where they cannot be read."""
    try:
        with (out / CURVES).open(encoding="utf-8", newline="") as file:
            *_, last = csv.DictReader(file)
        return f" after epoch {int(last['epoch'])}"
    except UNREADABLE:
        return ""


def _way_on(out: Path) -> str:
    for weights in sorted(out.glob("epoch-*.safetensors"), reverse=True):
        if _is_whole(weights):
            epoch = int(weights.stem.partition("-")[2])
            return (
                f"go on from epoch {epoch}, whose weights are whole: train into another --out, "
                f"with --init {weights}"
            )
    return "no weights of an epoch are whole: train anew, into another --out"


def _is_whole(weights: Path) -> bool:
    try:
        read_state_dict(weights)
    except InputError:
        return False
    return True
