"""The recipe: every number of a training, one TOML file each under `recipes/`.

`quick` shows the whole chain on two CPU cores in minutes, `cpu` makes a good network on them in little more
than an hour, `full` is for a CUDA device. `auto` takes quick or full by the machine, and the command line
says which. A path to a TOML file is a recipe, too.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from tumorseg_runtime.core.errors import InputError
from tumorseg_train.config.validation import STRICT, validated

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent / "recipes"
NAMES = ("quick", "cpu", "full")
# fields that have a flag of their own; the others have --set
FLAGS = {
    name: f"--{name.replace('_', '-')}"
    for name in ("encoder_weights", "epochs", "batch_size", "seed", "deterministic")
}

Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Schedule = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True, config=STRICT)
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
    mirror: the network answers with the mean over an image and its mirror image (`networks.mirrored`).
    epochs: 0 takes the initial weights as they are, and only chooses the threshold and judges.
    deterministic: the same seed and machine give the same bits; an operation that cannot is an error.
    """

    encoder_weights: str
    epochs: Count
    small_epochs: Count
    small_scale: Annotated[float, Field(gt=0, le=1)]
    batch_size: AtLeastOne
    accumulate: AtLeastOne
    crop: Annotated[int, Field(ge=0, multiple_of=32)]
    crops_per_image: AtLeastOne
    learning_rate: Positive
    warmup: Share
    schedule: Schedule
    weight_decay: NotNegative
    loss: str
    bce_weight: NotNegative
    epsilon: Positive
    gradient_clip: NotNegative
    average: Share
    rotation: NotNegative
    zoom: Share
    translation: NotNegative
    distortion: Share
    brightness: Share
    contrast: Share
    flip: bool
    validation_images: Count
    patience: Count
    workers: Count
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed"]
    channels_last: bool
    deterministic: bool
    seed: Count
    mirror: bool = False

    def __post_init__(self) -> None:
        if self.epochs and self.small_epochs >= self.epochs:
            raise InputError(
                f"small_epochs is {self.small_epochs} of {self.epochs} epochs, expected fewer: the last "
                "epochs must see the images at full size; set small_epochs lower or epochs higher"
            )

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
            f"recipe is '{name}', expected auto, {', '.join(NAMES)} or a TOML file "
            f"({error.strerror or error})"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not TOML ({error}): correct the file") from error
    given = {field: value for field, value in overrides.items() if value is not None}
    flags = {field: FLAGS.get(field, f"--set {field}") for field in given}
    return validated(Recipe, {**values, **given}, path, flags)


def parse_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """`FIELD=VALUE` from the command line as overrides for `load_recipe`; raises InputError."""
    overrides: dict[str, Any] = {}
    for setting in settings:
        field, equals, text = setting.partition("=")
        if not equals or field not in Recipe.__annotations__:
            names = list(Recipe.__annotations__)
            like = difflib.get_close_matches(field, names, n=1)
            meant = f"such as {like[0]}" if like else f"of {', '.join(names)}"
            raise InputError(f"--set is '{setting}', expected FIELD=VALUE with a field {meant}")
        try:
            overrides[field] = tomllib.loads(f"x = {text}")["x"]
        except tomllib.TOMLDecodeError:
            overrides[field] = text  # text needs no quotes here; the recipe knows where it is none
    return overrides


def _toml(value: str | float | bool) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)
