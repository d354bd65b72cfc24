"""The recipe: every number of a training, one TOML file each under `recipes/`.

`quick` shows the whole chain on two CPU cores in minutes; `full` is for a CUDA device. `auto` takes the
one that fits the machine, and the command line says which. A path to a TOML file is a recipe, too.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from tumorseg_runtime.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent / "recipes"
NAMES = ("quick", "full")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Numbers of a training.

    encoder_weights: 'imagenet', 'none' or a file.
    crop: side of the square crops in pixels, a multiple of 32; 0 trains on whole images.
    crops_per_image: how often an epoch visits each image, each time augmented and cropped anew.
    learning_rate: its peak: it climbs over the first `warmup` (share of all steps) and falls to zero.
    gradient_clip: largest norm of a step's gradient. bce_weight: λ of the loss.
    rotation in degrees, zoom and translation as shares: augmentation, drawn evenly either way.
    validation_images: how many validation images choose the checkpoint; 0 takes all.
    workers: processes that load images. precision: Lightning's name for it.
    """

    encoder_weights: str
    epochs: int
    batch_size: int
    crop: int
    crops_per_image: int
    learning_rate: float
    warmup: float
    weight_decay: float
    bce_weight: float
    gradient_clip: float
    rotation: float
    zoom: float
    translation: float
    flip: bool
    validation_images: int
    workers: int
    precision: str
    seed: int

    def __post_init__(self) -> None:
        for field in ("epochs", "batch_size", "crops_per_image"):
            if getattr(self, field) < 1:
                raise InputError(f"{field} is {getattr(self, field)}, expected 1 or more")
        for field in ("crop", "workers", "validation_images", "rotation", "translation", "weight_decay"):
            if getattr(self, field) < 0:
                raise InputError(f"{field} is {getattr(self, field)}, expected 0 or more")
        if self.crop % 32:
            raise InputError(f"crop is {self.crop}, expected a multiple of 32, or 0 for whole images")
        if not 0 < self.warmup < 1 or not 0 <= self.zoom < 1:
            raise InputError(f"warmup is {self.warmup}, zoom {self.zoom}: expected shares between 0 and 1")
        if self.learning_rate <= 0 or self.gradient_clip <= 0:
            raise InputError(
                f"learning_rate is {self.learning_rate}, gradient_clip {self.gradient_clip}: expected > 0"
            )


def load_recipe(name: str, **overrides: Any) -> Recipe:
    """The recipe 'quick' or 'full', or the one in a TOML file, with some fields replaced (None: as it is).

    Raises InputError for an unknown name, a damaged file, and missing, unknown or impossible fields.
    """
    path = FOLDER / f"{name}.toml" if name in NAMES else Path(name)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"recipe is '{name}', expected auto, {', '.join(NAMES)} or a TOML file ({error.strerror})"
        ) from error
    except tomllib.TOMLDecodeError as error:
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
