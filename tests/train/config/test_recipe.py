from pathlib import Path

import pytest

from tumorseg_runtime.core.errors import InputError
from tumorseg_train.config.recipe import FOLDER, NAMES, Recipe, load_recipe, parse_settings


@pytest.mark.parametrize("name", NAMES)
def test_shipped_recipes_load(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.epochs >= 1
    assert (recipe.encoder_weights == "none") == (name == "quick")


def test_flags_replace_fields_and_none_leaves_them() -> None:
    recipe = load_recipe("quick", epochs=2, seed=None)
    assert recipe.epochs == 2
    assert recipe.seed == load_recipe("quick").seed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("crop = 96", "crop = 100"), "crop is 100, expected a multiple of 32"),
        (("\nepochs = ", "\nepoch = "), "lacks the field epochs; has the unknown field epoch: correct it"),
        (("warmup = 0.15", "warmup = 15"), "warmup is 15, expected less than 1: correct it"),
        (("flip = true", "flip = 1"), "flip is 1, expected a valid boolean"),
        (("batch_size = 8", "batch_size = 0"), "batch_size is 0, expected greater than or equal to 1"),
        (("workers = 0", "workers = -1"), "workers is -1, expected greater than or equal to 0"),
        (("learning_rate = 1e-3", "learning_rate = 0"), "learning_rate is 0, expected greater than 0"),
        (("epsilon = 1.0", "epsilon = 0"), "epsilon is 0, expected greater than 0"),
        (("small_epochs = 0", "small_epochs = 6"), "small_epochs is 6 of 6 epochs, expected fewer"),
        (("small_scale = 0.5", "small_scale = 2"), "small_scale is 2, expected less than or equal to 1"),
        (('"cosine"', '"cyclic"'), "schedule is 'cyclic', expected 'cosine', 'linear' or 'constant'"),
        (('"32-true"', '"half"'), "precision is 'half', expected 'auto', '32-true'"),
        (("crop = 96", "crop = "), "is not TOML"),
        (("seed = 0", "seed = true"), "seed is True, expected a valid integer"),
        (("epsilon = 1.0", "epsilon = inf"), "epsilon is inf, expected a finite number"),
        (("seed = 0", "seed = 0.0"), "seed is 0.0, expected a valid integer"),
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
    with pytest.raises(InputError, match="recipe is 'fast', expected auto, quick, cpu, full or a TOML file"):
        load_recipe("fast")


def test_a_resolved_recipe_reads_back(tmp_path: Path) -> None:
    recipe = load_recipe("cpu", encoder_weights='C:\\weights "mine".safetensors', deterministic=True)
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    assert load_recipe(str(path)) == recipe


def test_any_field_can_be_set() -> None:
    settings = ("zoom=0.1", "flip=false", "loss=focal", "epochs=20")
    assert parse_settings(settings) == {"zoom": 0.1, "flip": False, "loss": "focal", "epochs": 20}
    with pytest.raises(InputError, match="--set is 'zoom', expected FIELD=VALUE"):
        parse_settings(("zoom",))
    with pytest.raises(InputError, match="expected FIELD=VALUE with a field of encoder_weights, epochs"):
        parse_settings(("banana=1",))
    with pytest.raises(InputError, match=r"with a field such as crop$"):
        parse_settings(("corp=64",))
    with pytest.raises(InputError, match="flip is 'yes', expected a valid boolean"):
        load_recipe("quick", **parse_settings(("flip=yes",)))


def test_the_first_epochs_are_small_and_the_others_full() -> None:
    recipe: Recipe = load_recipe("quick", small_epochs=2, small_scale=0.6)
    assert [recipe.scaled(512, epoch) for epoch in range(4)] == [320, 320, 512, 512]
    assert recipe.scaled(32, 0) == 32
