"""The plan of a training, as it is written into the run before the first step: what `--resume` goes on with.

plan.json     this class; the recipe as resolved
recipe.toml   the resolved recipe once more, as `--recipe` takes it
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.files import write_text
from tumorseg_runtime.core.records import Format, Range, Sha256, to_json
from tumorseg_train.config.recipe import Recipe

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


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """What a training starts from: a file's absolute path, and its hash."""

    path: str
    sha256: Sha256


@dataclasses.dataclass(frozen=True)
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
    devices: Annotated[int, Range(1)] = 1
    nodes: Annotated[int, Range(1)] = 1
    initial_weights: InitialWeights | None = None

    def __post_init__(self) -> None:
        if self.devices < 1 or self.nodes < 1:
            raise InputError(f"devices is {self.devices}, nodes {self.nodes}: expected 1 or more of each")

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
        return FORMAT.read_record(out / PLAN, cls)
