"""Phantoms, and a recipe that is quick with them."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tumorseg_train.data.phantoms import write_phantoms

    root = tmp_path_factory.mktemp("phantoms") / "data"
    write_phantoms(root, brain=14, breast=24, seed=3)
    return root


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quick recipe, with crops that fit into 64x64."""
    from tumorseg_train.config.recipe import FOLDER

    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    text = (FOLDER / "quick.toml").read_text(encoding="utf-8")
    path.write_text(text.replace("crop = 96", "crop = 32"), encoding="utf-8")
    return path
