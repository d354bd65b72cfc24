"""Checkpoints that `tumorseg train` did not write: state dicts, and folders that smp's save_pretrained wrote.

What the file says is believed, what a flag says must not contradict it, and what neither says is refused or
follows a rule that is printed. Nothing is dropped unsaid: the network's keys and the file's must be the same,
and what lies beside it is named (`state_file`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumorseg_export.checkpoint.decision import AgainstBackground, choose_decision
from tumorseg_export.checkpoint.derived import UPERNET_04, architecture_like, refuse_upernet_of_04
from tumorseg_export.checkpoint.normalisation import choose_normalisation
from tumorseg_export.checkpoint.reader import Checkpoint, from_run
from tumorseg_export.checkpoint.smp_config import (
    CONFIG,
    Config,
    Log,
    checked_options,
    read_config,
    weights_in,
)
from tumorseg_export.checkpoint.state_file import State, read_network
from tumorseg_export.checkpoint.state_fit import (
    check_runs,
    fitting_network,
)
from tumorseg_export.checkpoint.transform_config import Transform, read_transforms
from tumorseg_export.references.folder_images import PHANTOMS, describe, open_images
from tumorseg_runtime.bundle.bundle import sha256_of
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import BundleError, InputError
from tumorseg_runtime.core.paths import require
from tumorseg_train.networks.models import ARCHITECTURES, require_architecture
from tumorseg_train.networks.run import INDEX, Run

if TYPE_CHECKING:
    import torch

SIZE = 512, 512  # where neither file nor flag says it
UNKNOWN = "foreign checkpoint, nothing is known of its training"
NAMES = {"architecture": "arch", "options": "option"}  # of flags that are not their field's


@dataclasses.dataclass(frozen=True)
class CheckpointOptions:
    """What the caller says of a foreign checkpoint; None where that is left to the file, or to a rule.

    size: height and width in pixels. mean, std: per channel, for intensities scaled to 0..1.
    images: a folder, or 'phantoms' (`tumorseg_export.references.folder_images`).
    entry: which network, where a file holds several.
    options: arguments of smp's class that neither the file nor its keys and shapes say.
    """

    architecture: str | None = None
    encoder: str | None = None
    classes: tuple[str, ...] | None = None
    rule: str | None = None
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    threshold: float | None = None
    images: str | None = None
    entry: str | None = None
    options: Mapping[str, Any] | None = None


def open_foreign(path: Path, given: CheckpointOptions, log: Log = lambda line: None) -> Checkpoint:
    """Read and check a foreign checkpoint whole, before any work is done with it.

    log: called with one line for each fact that neither the file nor a flag gave.
    Raises InputError for what is missing, contradicts the file, or does not fit the network.
    """
    if given.images is None:
        raise InputError(
            f"{path}: is a foreign checkpoint, and its artefacts must be proven on images: give --images "
            f"FOLDER (images, or a dataset), or --images {PHANTOMS} to draw some on purpose"
        )
    golden_from = describe(given.images)
    config = read_config(path / CONFIG, log) if path.is_dir() else None
    file = weights_in(path) if path.is_dir() else path
    stored = read_network(file, log, given.entry)
    transforms = read_transforms(path) if path.is_dir() else []
    architecture, encoder = _network_of(file, stored.state, config, given, log)
    said = _options(architecture, encoder, config, given)
    fitted = fitting_network(file, stored.state, architecture, encoder, said, log)
    channels, model = fitted.channels, fitted.model
    if config is not None and (config.channels, config.classes) != (channels, fitted.classes):
        raise InputError(
            f"{file}: has {channels} channels and {fitted.classes} classes, {CONFIG} says {config.channels} "
            f"and {config.classes}: the two do not belong together; save the model again"
        )
    known = None if config is None else config.rule
    decision = choose_decision(file, fitted.classes, given.classes, (given.rule, known), given.threshold, log)
    mean_std = choose_normalisation(
        file, (given.mean, given.std), stored.beside, transforms, encoder, channels, log
    )
    size = _size(given, transforms, model, log)
    contract = Contract(
        *size, *mean_std, classes=decision.classes, threshold=decision.threshold, rule=decision.rule
    )
    if decision.background is not None:
        model = AgainstBackground(model, decision.background)
    check_runs(file, model, contract)
    images = given.images
    sha256 = sha256_of(file)
    log(_summary(architecture, encoder, contract, fitted.options))
    return Checkpoint(
        architecture=architecture,
        encoder=encoder,
        contract=contract,
        sha256=sha256,
        options=fitted.options,
        origin={
            "tumorseg": version("tumorseg"),
            "architecture": architecture,
            "encoder": encoder,
            "checkpoint_sha256": sha256,
        },
        training={"phantoms": None, "data": {}, "metrics": {}, "training": {"note": UNKNOWN}},
        golden_from=golden_from,
        load=lambda: model,
        images=lambda: open_images(images, channels, log),
    )


def _network_of(
    file: Path, state: State, config: Config | None, given: CheckpointOptions, log: Log
) -> tuple[str, str]:
    """Architecture and encoder, from the config or from the flags; both must agree where both speak."""
    if config is not None:
        for flag, said, known in (
            ("--arch", given.architecture, config.architecture),
            ("--encoder", given.encoder, config.encoder),
        ):
            if said is not None and said.lower() != known.lower():
                raise InputError(f"{flag} is {said}, {CONFIG} says {known}: leave the flag out")
        return config.architecture, config.encoder
    if any(key.startswith(UPERNET_04) for key in state):
        refuse_upernet_of_04(file)
    architecture = None if given.architecture is None else given.architecture.lower()
    if architecture is not None:
        require_architecture(architecture)
    like = architecture_like(state)
    if given.encoder is None or (architecture or like) is None:
        flags = {"--arch": architecture, "--encoder": given.encoder}
        missing = [flag for flag, said in flags.items() if said is None]
        hint = f"; its decoder has the keys of --arch {like}" if like and architecture is None else ""
        raise InputError(
            f"{file}: does not say what network it is{hint}: give {' and '.join(missing)} "
            f"(architectures: {', '.join(ARCHITECTURES)}; encoders: smp's names, such as resnet34)"
        )
    if architecture is None and like is not None:
        log(f"architecture: {like}, by the keys of its decoder")
    return architecture or str(like), given.encoder


def _options(
    architecture: str, encoder: str, config: Config | None, given: CheckpointOptions
) -> dict[str, Any]:
    """What the config and --option say of the network; both must agree where both speak."""
    flags = checked_options("--option", architecture, encoder, given.options or {})
    said = {} if config is None else config.options
    if wrong := [name for name, value in flags.items() if name in said and value != said[name]]:
        raise InputError(
            f"--option {wrong[0]} is {flags[wrong[0]]!r}, {CONFIG} says {said[wrong[0]]!r}: leave it out"
        )
    return {**said, **flags}


def _size(
    given: CheckpointOptions, transforms: Sequence[Transform], model: torch.nn.Module, log: Log
) -> tuple[int, int]:
    """Height and width: of the flag, of the folder's transform, or by the rule, which is said."""
    for one in transforms:
        if given.size is None and one.geometry:
            raise InputError(
                f"{one.file}: places the image by {', '.join(one.geometry)}, expected Resize alone, since "
                "here every image is stretched to one size: give --size if that will do"
            )
        if one.size is not None and given.size is None:
            log(f"size: {one.size[0]}x{one.size[1]}, of {one.file.name}")
            return one.size
        if one.geometry or (one.size is not None and one.size != given.size):
            log(f"--size takes the place of what {one.file.name} says: {', '.join(one.geometry) or one.size}")
    if given.size is not None:
        return given.size
    if own := getattr(model.encoder, "input_size", None):  # of DPT's, (3, height, width)
        log(f"no --size: {own[1]}x{own[2]}, for which the encoder has embeddings of positions")
        return int(own[1]), int(own[2])
    height, width = SIZE
    log(f"no --size: the input has {height}x{width} pixels; a network decides best at its training's size")
    return SIZE


def _summary(architecture: str, encoder: str, contract: Contract, options: dict[str, Any]) -> str:
    extra = f", options {options}" if options else ""
    return (
        f"foreign checkpoint: {architecture} with {encoder}{extra}, {contract.channels} channel(s), "
        f"classes {', '.join(contract.classes)}, {contract.height}x{contract.width}"
    )


def open_checkpoint(path: Path, given: CheckpointOptions, log: Log = lambda line: None) -> Checkpoint:
    """The checkpoint of a run of ours, or of anything that `open_foreign` reads.

    Of `given`, a run takes `images` alone; golden images and proofs are then of these, not of its split.
    Raises BundleError for a folder that is neither, and InputError where nothing is there or `given` says
    more of a run.
    """
    require(path, "a run of `tumorseg train`, a folder of smp's save_pretrained, or a file of weights")
    if (path / INDEX).is_file():
        flags = {f"--{NAMES.get(name, name)}" for name, value in vars(given).items() if value is not None}
        if wrong := sorted(flags - {"--images"}):
            raise InputError(
                f"{path}: is a run, which says itself what it is; got {', '.join(wrong)}: leave that out"
            )
        checkpoint = from_run(Run.open(path))
        return checkpoint if given.images is None else _on_images(checkpoint, given.images, log)
    if path.is_dir() and not (path / CONFIG).is_file():
        raise BundleError(
            f"{path}: has no {INDEX} and no {CONFIG}, expected a run of `tumorseg train` (is it still "
            "training?), a folder of smp's save_pretrained, or a file of weights"
        )
    return open_foreign(path, given, log)


def _on_images(checkpoint: Checkpoint, images: str, log: Log) -> Checkpoint:
    """The checkpoint, proven on other images than those of its split."""
    channels = checkpoint.contract.channels
    return dataclasses.replace(
        checkpoint, golden_from=describe(images), images=lambda: open_images(images, channels, log)
    )
