"""The recipe: every number of a training, one TOML file each under `recipes/`.

`quick` shows the whole chain on two CPU cores in minutes, `cpu` makes a good network on them in little more
than an hour, `full` is for a CUDA device. `auto` takes quick or full by the machine, and the command line
says which. A path to a TOML file is a recipe, too.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from tumorseg_runtime.core.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent / "recipes"
NAMES = ("quick", "cpu", "full")
SCHEDULES = ("cosine", "linear", "constant")
PRECISIONS = ("auto", "32-true", "16-mixed", "bf16-mixed")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Numbers of a training.

    encoder_weights: 'imagenet', 'none' or a file.
    small_epochs: the first epochs, which see the images at `small_scale` of the contract's size.
    crop: side of the square crops in pixels, a multiple of 32; 0 trains on whole images.
    crops_per_image: how often an epoch visits each image, each time augmented and cropped anew.
    accumulate: batches whose gradients make one step.
    learning_rate: its peak: it climbs over the first `warmup` (share of all steps), then follows `schedule`.
    loss: a name of `losses.LOSSES`; bce_weight: λ of dice+bce; epsilon: ε of the losses with sums.
    gradient_clip: largest norm of a step's gradient, 0 for none.
    average: decay of the running average of the weights, which is then what is judged and kept; 0 for none.
    rotation in degrees, zoom, translation, brightness and contrast as shares: drawn evenly either way.
    distortion: how far the lines of a 5 x 5 grid move, as a share of a cell; every second image is distorted.
    validation_images: how many validation images choose the checkpoint; 0 takes all.
    patience: epochs without a better validation Dice after which training ends; 0 never ends it early.
    workers: processes that load images. precision: Lightning's name for it, or 'auto'.
    deterministic: the same seed and machine give the same bits; an operation that cannot is an error.
    """

    encoder_weights: str
    epochs: int
    small_epochs: int
    small_scale: float
    batch_size: int
    accumulate: int
    crop: int
    crops_per_image: int
    learning_rate: float
    warmup: float
    schedule: str
    weight_decay: float
    loss: str
    bce_weight: float
    epsilon: float
    gradient_clip: float
    average: float
    rotation: float
    zoom: float
    translation: float
    distortion: float
    brightness: float
    contrast: float
    flip: bool
    validation_images: int
    patience: int
    workers: int
    precision: str
    channels_last: bool
    deterministic: bool
    seed: int

    def __post_init__(self) -> None:
        self._least(1, "epochs", "batch_size", "accumulate", "crops_per_image")
        self._least(0, "small_epochs", "crop", "workers", "validation_images", "patience", "seed")
        self._least(0, "rotation", "translation", "weight_decay", "bce_weight", "gradient_clip")
        for field in ("warmup", "zoom", "average", "distortion", "brightness", "contrast"):
            if not 0 <= getattr(self, field) < 1:
                raise InputError(f"{field} is {getattr(self, field)}, expected a share from 0 to below 1")
        for field, names in (("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, field) not in names:
                raise InputError(f"{field} is '{getattr(self, field)}', expected one of {', '.join(names)}")
        if self.crop % 32:
            raise InputError(f"crop is {self.crop}, expected a multiple of 32, or 0 for whole images")
        if self.small_epochs >= self.epochs:
            raise InputError(
                f"small_epochs is {self.small_epochs} of {self.epochs} epochs, expected fewer: the last "
                "epochs must see the images at full size; set small_epochs lower or epochs higher"
            )
        if not 0 < self.small_scale <= 1:
            raise InputError(f"small_scale is {self.small_scale}, expected a share above 0, at most 1")
        for field in ("learning_rate", "epsilon"):
            if getattr(self, field) <= 0:
                raise InputError(f"{field} is {getattr(self, field)}, expected > 0")

    def _least(self, least: int, *fields: str) -> None:
        for field in fields:
            if getattr(self, field) < least:
                raise InputError(f"{field} is {getattr(self, field)}, expected {least} or more")

    def scaled(self, pixels: int, epoch: int) -> int:
        """Height or width in pixels of the images of an epoch (from 0), for `pixels` in the contract."""
        if epoch >= self.small_epochs:
            return pixels
        return max(32, round(pixels * self.small_scale / 32) * 32)

    def to_toml(self) -> str:
        """The recipe as `load_recipe` reads it."""
        return "".join(f"{field} = {_toml(value)}\n" for field, value in vars(self).items())


def load_recipe(name: str, **overrides: Any) -> Recipe:
    """The recipe of a name in `NAMES`, or the one in a TOML file, with some fields replaced (None: as it is).

    Raises InputError for an unknown name, a damaged file, and missing, unknown or impossible fields.
    """
    path = FOLDER / f"{name}.toml" if name in NAMES else Path(name)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"recipe is '{name}', expected auto, {', '.join(NAMES)} or a TOML file ({error.strerror})"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not TOML ({error}): correct the file") from error
    values.update({field: value for field, value in overrides.items() if value is not None})
    types = {field.name: field.type for field in dataclasses.fields(Recipe)}
    missing, unknown = sorted(set(types) - set(values)), sorted(set(values) - set(types))
    if missing or unknown:
        raise InputError(f"{path}: lacks the fields {missing} and has the unknown ones {unknown}: correct it")
    for field, value in values.items():
        if type(value).__name__ != types[field] and not (types[field] == "float" and type(value) is int):
            raise InputError(f"{path}: {field} is {value!r}, expected {types[field]}: correct it")
    return Recipe(**values)


def parse_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """`FIELD=VALUE` from the command line as overrides for `load_recipe`; raises InputError."""
    types = {field.name: str(field.type) for field in dataclasses.fields(Recipe)}
    overrides: dict[str, Any] = {}
    for setting in settings:
        field, equals, text = setting.partition("=")
        if not equals or field not in types:
            raise InputError(f"--set is '{setting}', expected FIELD=VALUE with a field of {', '.join(types)}")
        try:
            overrides[field] = text if types[field] == "str" else tomllib.loads(f"x = {text}")["x"]
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"--set {field} is '{text}', expected {types[field]} ({error})") from error
    return overrides


def _toml(value: str | float | bool) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)
