"""Initial weights that have seen the images which judge them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from tumorseg_runtime.core.errors import InputError
from tumorseg_train.config.plan import PLAN
from tumorseg_train.data.split import SPLIT, Item, Manifest
from tumorseg_train.networks.initial import check_unseen
from tumorseg_train.training.checkpointing import save_weights


def make_manifest(root: Path, parts: str) -> Manifest:
    """One image a letter of `parts`: t(rain), v(al) or e(valuation)."""
    names = {"t": "train", "v": "val", "e": "test"}
    items = tuple(
        Item(f"{n}.png", (), "brain", "tumour", names[part], 8, 8, 1, {f"{n}.png": f"{n:064x}"}, "", "image")
        for n, part in enumerate(parts)
    )
    return Manifest(root, 0, items, "grouped")


def test_a_run_that_was_trained_on_this_test_part_is_refused(tmp_path: Path) -> None:
    make_manifest(tmp_path, "ttttvvee").write(tmp_path / SPLIT)
    (tmp_path / PLAN).touch()
    for source in (tmp_path, tmp_path / "epoch-0001.safetensors"):
        assert check_unseen(source, make_manifest(tmp_path, "ttttevve")) == ""
        with pytest.raises(InputError, match="was trained on 2 of the 4 images that validate and test here"):
            check_unseen(source, make_manifest(tmp_path, "vettvett"))


def test_of_a_file_the_split_is_known_or_said_to_be_unknown(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, "ttve")
    state, path = {"weight": torch.zeros(1)}, tmp_path / "weights.safetensors"
    save_weights(state, path, manifest.digest())
    assert check_unseen(path, manifest) == ""
    other = dataclasses.replace(manifest, seed=1)
    assert f"trained on split {manifest.digest()[:12]}, this one is {other.digest()[:12]}" in check_unseen(
        path, other
    )
    save_weights(state, path)
    assert "trained on an unknown split" in check_unseen(path, manifest)
