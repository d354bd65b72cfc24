"""The weights that `--init` starts a training from: a run's, finished or broken off, or a file's."""

from __future__ import annotations

from pathlib import Path

import torch

from tumorseg_runtime.bundle.bundle import sha256_of
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.config.plan import PLAN, InitialWeights, TrainingPlan
from tumorseg_train.networks.models import build_model, load_exactly
from tumorseg_train.networks.run import CHECKPOINT, INDEX, Run
from tumorseg_train.networks.weights_file import read_state_dict

FITS = ("architecture", "encoder", "classes", "mean", "std")  # the size may differ


def initial_weights(source: Path, architecture: str, encoder: str, contract: Contract) -> InitialWeights:
    """The weights of a run's folder or of a file, which must be the whole network's.

    Of a run that was broken off they are those of its best epoch so far.
    Raises InputError where they are another network's, and BundleError for a damaged run.
    """
    if not source.is_dir():
        path = source
    elif (source / INDEX).is_file():
        run = Run.open(source)
        _check_fits(source, run, architecture, encoder, contract)
        path = source / CHECKPOINT
    elif (source / PLAN).is_file():
        _check_fits(source, TrainingPlan.read(source), architecture, encoder, contract)
        kept = sorted(source.glob("epoch-*.safetensors"))
        if not kept:
            raise InputError(
                f"{source}: has no weights yet, expected a whole epoch at least: let it train on"
            )
        path = kept[-1]
    else:
        raise InputError(
            f"{source}: has neither {INDEX} nor {PLAN}, expected a run or a file of weights: correct --init"
        )
    model = build_model(architecture, encoder, channels=contract.channels, classes=len(contract.classes))
    load_exactly(model, read_state_dict(path), f"initial weights '{path}' for {architecture} {encoder}")
    return InitialWeights(str(path.resolve()), sha256_of(path))


def load_initial_weights(model: torch.nn.Module, initial: InitialWeights) -> None:
    """Fill the whole network; raises InputError where the file is gone or another one."""
    path = Path(initial.path)
    if not path.is_file() or sha256_of(path) != initial.sha256:
        raise InputError(f"{path}: is missing or changed since the training was planned: bring it back")
    load_exactly(model, read_state_dict(path), f"initial weights '{path}'")


def _check_fits(
    source: Path, trained: Run | TrainingPlan, architecture: str, encoder: str, contract: Contract
) -> None:
    expected = {"architecture": architecture, "encoder": encoder, **vars(contract)}
    got = {"architecture": trained.architecture, "encoder": trained.encoder, **vars(trained.contract)}
    for name in FITS:
        if got[name] != expected[name]:
            raise InputError(
                f"{source}: {name} is {got[name]}, expected {expected[name]}, this training's: "
                "give --arch and --encoder of that run, or another --init"
            )
