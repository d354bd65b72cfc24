"""The run: the folder in which training leaves what export and the benchmarks need.

checkpoint.safetensors   weights of the best epoch by validation Dice
split.json               the manifest of the data: every file, its hash, its part
(`tumorseg_train.data.split`) run.json                 this class
curves.csv, curves.png   loss, Dice and learning rate per epoch
test_scores.csv          figures of every test image
guard.json               the input guard, where `tumorseg calibrate` fitted one
plan.json, recipe.toml   what was asked for (`tumorseg_train.config.plan`)
resume.ckpt              the last whole epoch (`tumorseg_train.training.checkpointing`)
tensorboard/             loss of every step, loss and Dice of every epoch
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import torch

from tumorseg_runtime.bundle.bundle import sha256_of
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BundleError
from tumorseg_runtime.core.files import write_text
from tumorseg_runtime.core.records import Fields, Format, Sha256, to_json
from tumorseg_runtime.processing.input_guard import FILE as GUARD
from tumorseg_runtime.processing.input_guard import FORMAT as GUARD_FORMAT
from tumorseg_runtime.processing.input_guard import InputGuard
from tumorseg_train.data.split import SPLIT, Manifest
from tumorseg_train.networks.mirrored import Mirrored
from tumorseg_train.networks.models import build_model, load_exactly
from tumorseg_train.networks.weights_file import read_state_dict

SCHEMA = 1
INDEX = "run.json"
CHECKPOINT = "checkpoint.safetensors"
FORMAT = Format(
    "run",
    "train again",
    SCHEMA,
    renew="train again with this version of tumorseg",
    folder="a run made by `tumorseg train` (is it still training?)",
)


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished training.

    data: root (absolute path of the images), split_sha256, phantoms (drawn images?), images per part.
    training: recipe, seed, epochs, seconds, device, versions.
    metrics: best epoch with its Dice on the validation images used, at threshold 0.5; the threshold that the
        whole validation part chose, with its figures; figures of the test part at that threshold.
    """

    root: Path
    architecture: str
    encoder: str
    contract: Contract
    checkpoint_sha256: Sha256
    data: Annotated[dict[str, Any], Fields(root=str, split_sha256=Sha256, phantoms=bool)]
    training: Annotated[dict[str, Any], Fields(recipe=dict[str, Any])]
    metrics: dict[str, Any]

    def __repr__(self) -> str:
        size = f"{self.contract.height}x{self.contract.width}"
        return f"<Run {self.architecture} {self.encoder}, {size}, in {self.root}>"

    @classmethod
    def open(cls, root: str | Path) -> Run:
        """Read `run.json` and check the checkpoint's hash; raises BundleError."""
        root = Path(root)
        run = FORMAT.read_record(root / INDEX, cls, root=root)
        checkpoint = root / CHECKPOINT
        if not checkpoint.is_file():
            raise BundleError(f"{root}: has no {CHECKPOINT}, expected the weights: train again")
        if sha256_of(checkpoint) != run.checkpoint_sha256:
            raise BundleError(
                f"{checkpoint}: SHA-256 differs from the one in {INDEX}: the weights are damaged or "
                "belong to another run; copy or train again"
            )
        return run

    def write(self) -> None:
        """Write `run.json`, whole or not at all."""
        values = {"schema": SCHEMA, **dataclasses.asdict(self)}
        del values["root"]
        write_text(self.root / INDEX, to_json(values))

    def model(self) -> torch.nn.Module:
        """The trained network in evaluation mode, mirrored where the recipe says so.

        float (N, C, h, w) -> logits (N, K, h, w).
        """
        model = build_model(
            self.architecture,
            self.encoder,
            channels=self.contract.channels,
            classes=len(self.contract.classes),
        )
        load_exactly(model, read_state_dict(self.root / CHECKPOINT), str(self.root / CHECKPOINT))
        if self.training["recipe"].get("mirror"):
            model = Mirrored(model)
        return model.eval()

    def guard(self) -> InputGuard | None:
        """The input guard that `tumorseg calibrate` left, None where it did not; raises BundleError for one
        of another split."""
        guard = GUARD_FORMAT.read_if_there(self.root / GUARD, InputGuard)
        if guard is not None and guard.split_sha256 != self.data["split_sha256"]:
            raise BundleError(
                f"{self.root / GUARD}: is of another split than {INDEX} names: run `tumorseg calibrate` again"
            )
        return guard

    def manifest(self) -> Manifest:
        """The split that the run was trained on; raises BundleError where it is not the one in `run.json`."""
        manifest = Manifest.read(self.root / SPLIT, root=Path(self.data["root"]))
        if manifest.digest() != self.data["split_sha256"]:
            raise BundleError(f"{self.root / SPLIT}: is not the split that {INDEX} names: train again")
        return manifest
