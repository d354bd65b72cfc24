"""The weights that `--init` starts a training from: a run's, finished or broken off, or a file's."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import safe_open

from tumorseg_runtime.bundle.bundle import sha256_of
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.config.plan import PLAN, InitialWeights, TrainingPlan
from tumorseg_train.data.split import SPLIT, Manifest
from tumorseg_train.networks.models import build_model, load_exactly
from tumorseg_train.networks.run import CHECKPOINT, INDEX, Run
from tumorseg_train.networks.weights_file import SPLIT_SHA256, read_state_dict

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


def check_unseen(source: Path, manifest: Manifest) -> str:
    """Raise InputError where a run's network was trained on images that validate or test here.

    Of a file of weights no more than the hash of its split is known, where `tumorseg unfold` wrote it.
    Returns a line where nothing is known, else nothing.
    """
    root = source if source.is_dir() else source.parent
    if any((root / name).is_file() for name in (INDEX, PLAN)):
        seen = {item.files[item.image] for item in Manifest.read(root / SPLIT, manifest.root).part("train")}
        judging = [item for part in ("val", "test") for item in manifest.part(part)]
        known = sum(item.files[item.image] in seen for item in judging)
        if known:
            raise InputError(
                f"{source}: was trained on {known} of the {len(judging)} images that validate and test here, "
                "expected none: take its split (--set seed=, --split), or leave --init out"
            )
        return ""
    split = _split_of(source)
    if split == manifest.digest():
        return ""
    return (
        f"{source}: trained on {f'split {split[:12]}' if split else 'an unknown split'}, this one is "
        f"{manifest.digest()[:12]}: figures on images that it has seen are too good"
    )


def _split_of(path: Path) -> str:
    """The SHA-256 of the split of weights that `tumorseg unfold` wrote; empty for others."""
    if path.suffix != ".safetensors":
        return ""
    with safe_open(path, "pt") as file:
        return str((file.metadata() or {}).get(SPLIT_SHA256, ""))


def load_initial_weights(model: torch.nn.Module, initial: InitialWeights) -> None:
    """Fill the whole network; raises InputError where the file is gone or another one."""
    path = Path(initial.path)
    if not os.path.isfile(path) or sha256_of(path) != initial.sha256:
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
