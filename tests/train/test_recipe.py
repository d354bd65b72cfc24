from pathlib import Path

import pytest

from tumorseg_runtime.errors import InputError
from tumorseg_train.recipe import FOLDER, NAMES, load_recipe


@pytest.mark.parametrize("name", NAMES)
def test_shipped_recipes_load(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.epochs >= 1
    assert recipe.encoder_weights == {"quick": "none", "full": "imagenet"}[name]


def test_flags_replace_fields_and_none_leaves_them() -> None:
    recipe = load_recipe("quick", epochs=2, seed=None)
    assert recipe.epochs == 2
    assert recipe.seed == load_recipe("quick").seed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("crop = 96", "crop = 100"), "crop is 100, expected a multiple of 32"),
        (("epochs = ", "epoch = "), r"lacks the fields \['epochs'\] and has the unknown ones \['epoch'\]"),
        (("warmup = 0.15", "warmup = 15"), "expected shares between 0 and 1"),
        (("flip = true", "flip = 1"), "flip is 1, expected bool"),
        (("batch_size = 8", "batch_size = 0"), "batch_size is 0, expected 1 or more"),
        (("workers = 0", "workers = -1"), "workers is -1, expected 0 or more"),
        (("learning_rate = 1e-3", "learning_rate = 0"), "expected > 0"),
        (("crop = 96", "crop = "), "is not TOML"),
    ],
)
def test_impossible_recipes_are_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    text = (FOLDER / "quick.toml").read_text(encoding="utf-8")
    assert change[0] in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load_recipe(str(path))


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(InputError, match="recipe is 'fast', expected auto, quick, full or a TOML file"):
        load_recipe("fast")
