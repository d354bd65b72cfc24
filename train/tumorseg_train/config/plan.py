"""The plan of a training, as it is written into the run before the first step: what `--resume` goes on with.

plan.json     this class; the recipe as resolved
recipe.toml   the resolved recipe once more, as `--recipe` takes it
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.files import write_text
from tumorseg_runtime.core.records import Fields, Format, to_json
from tumorseg_train.config.recipe import AtLeastOne, Recipe
from tumorseg_train.config.validation import STRICT, validated

SCHEMA = 2  # 1: without initial_weights, and with another resume.ckpt
PLAN, RECIPE = "plan.json", "recipe.toml"
FORMAT = Format(
    "plan of a training",
    "train anew",
    SCHEMA,
    renew="train anew, from its weights with --init RUN/epoch-....safetensors",
    folder="the folder of a training that was broken off: train anew",
    error=InputError,
    max_bytes=2**20,
)


@dataclass(frozen=True, config={"extra": "forbid"})
class InitialWeights:
    """What a training starts from: a file's absolute path, and its hash."""

    path: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True, config=STRICT)
class TrainingPlan:
    """What is trained, on what, and how.

    data: absolute path of the images. devices: processes on each of `nodes` machines. initial_weights: of the
    whole network; None where it starts from random ones and the recipe's `encoder_weights`.
    """

    data: str
    architecture: str
    encoder: str
    contract: Contract
    recipe: Recipe
    recipe_name: str
    devices: AtLeastOne = 1
    nodes: AtLeastOne = 1
    initial_weights: InitialWeights | None = None

    @property
    def processes(self) -> int:
        """Processes in all."""
        return self.devices * self.nodes

    def write(self, out: Path) -> None:
        """Write `plan.json` and `recipe.toml` into the run."""
        write_text(out / PLAN, to_json({"schema": SCHEMA, **dataclasses.asdict(self)}))
        write_text(out / RECIPE, self.recipe.to_toml())

    @classmethod
    def read(cls, out: Path) -> TrainingPlan:
        """Read what `write` wrote; raises InputError where there is nothing to go on with."""
        path = out / PLAN
        values = FORMAT.read(path, Fields(contract=Contract, recipe=dict[str, Any]))
        del values["schema"]
        values["recipe"] = validated(Recipe, values["recipe"], f"{path}: recipe")
        return validated(cls, values, path)
