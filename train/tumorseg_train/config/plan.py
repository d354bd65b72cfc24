"""The plan of a training, as it is written into the run before the first step: what `--resume` goes on with.

plan.json     this class; the recipe as resolved
recipe.toml   the resolved recipe once more, as `--recipe` takes it
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BundleError, InputError
from tumorseg_train.config.recipe import Recipe

SCHEMA = 1
PLAN, RECIPE = "plan.json", "recipe.toml"


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """What is trained, on what, and how.

    data: absolute path of the images. devices: processes on each of `nodes` machines.
    """

    data: str
    architecture: str
    encoder: str
    contract: Contract
    recipe: Recipe
    recipe_name: str
    devices: int = 1
    nodes: int = 1

    def __post_init__(self) -> None:
        if self.devices < 1 or self.nodes < 1:
            raise InputError(f"devices is {self.devices}, nodes {self.nodes}: expected 1 or more of each")

    @property
    def processes(self) -> int:
        """Processes in all."""
        return self.devices * self.nodes

    def write(self, out: Path) -> None:
        """Write `plan.json` and `recipe.toml` into the run."""
        text = json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=2, ensure_ascii=False)
        for name, content in ((PLAN, text + "\n"), (RECIPE, self.recipe.to_toml())):
            part = out / f"{name}.part"
            part.write_text(content, encoding="utf-8")
            part.replace(out / name)

    @classmethod
    def read(cls, out: Path) -> TrainingPlan:
        """Read what `write` wrote; raises InputError where there is nothing to go on with."""
        try:
            values = json.loads((out / PLAN).read_text(encoding="utf-8"))
            schema = values.pop("schema")
            if schema != SCHEMA:
                raise InputError(f"{out / PLAN}: schema is {schema}, expected {SCHEMA}: train anew")
            contract, recipe = Contract.from_dict(values.pop("contract")), Recipe(**values.pop("recipe"))
            return cls(contract=contract, recipe=recipe, **values)
        except FileNotFoundError:
            raise InputError(
                f"{out}: has no {PLAN}, expected the folder of a training that was broken off: train anew"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, BundleError) as error:
            raise InputError(f"{out / PLAN}: cannot be read ({error}): train anew") from error
