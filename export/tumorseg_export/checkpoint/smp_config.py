"""`config.json` of a folder that smp's save_pretrained wrote: which network its weights are for."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tumorseg_export.checkpoint.decision import ACTIVATIONS
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.records import Fields, Format
from tumorseg_train.networks.models import ARCHITECTURES

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # newest form first
# Entries that are not options of the network.
NOT_OPTIONS = ("encoder_name", "encoder_weights", "in_channels", "classes")
# Options that change what comes out: probabilities, another size.
KEPT = ("activation", "upsampling")

_FORMAT = Format(
    "config of smp's save_pretrained",
    "save the model again, or give its file of weights with --arch and --encoder",
    folder="a folder that smp's save_pretrained wrote, a run, or a file of weights",
    error=InputError,
    max_bytes=2**20,
)
_FIELDS = Fields(_model_class=str, encoder_name=str, in_channels=int, classes=int)
Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Config:
    """What a config.json of smp says; `options` are arguments that are not the class's defaults.
    rule: what its activation says of the decision."""

    architecture: str
    encoder: str
    channels: int
    classes: int
    options: dict[str, Any]
    rule: str | None


def read_config(path: Path, log: Log) -> Config:
    """Read a config.json of smp's save_pretrained; raises InputError for what the export cannot keep."""
    values = _FORMAT.read(path, _FIELDS)
    name, encoder = values["_model_class"], values["encoder_name"]
    channels, classes = values["in_channels"], values["classes"]
    known = {kind.__name__: architecture for architecture, kind in ARCHITECTURES.items()}
    if name not in known:
        raise InputError(f"{path}: is a {name}, expected one of {', '.join(known)}")
    activation = values.get("activation")
    rule = ACTIVATIONS.get(activation) if isinstance(activation, str) else None
    if rule is not None:
        log(f"the activation {activation} is left off: artefacts give logits, which the rule {rule} decides")
        values = {**values, "activation": None}
    options = _options(path, values, known[name], log)
    return Config(known[name], encoder, channels, classes, options, rule)


def _options(path: Path, values: dict[str, Any], architecture: str, log: Log) -> dict[str, Any]:
    """Arguments that change the network and are not its defaults."""
    given = {
        name: value for name, value in values.items() if not name.startswith("_") and name not in NOT_OPTIONS
    }
    if "decoder_use_batchnorm" in given:  # its name in earlier versions of smp
        given["decoder_use_norm"] = given.pop("decoder_use_batchnorm")
        if given["decoder_use_norm"] is True:
            given["decoder_use_norm"] = "batchnorm"
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(ARCHITECTURES[architecture].__init__).parameters.items()
    }
    if given.pop("aux_params", None) is not None:
        log("aux_params are left off: the classification head is a second output, which is not exported")
    changed = {name: value for name, value in given.items() if not _same(value, defaults.get(name, ...))}
    unfit = sorted(name for name in changed if name in KEPT or name not in defaults)
    if unfit:
        raise InputError(
            f"{path}: has {', '.join(f'{name} = {changed[name]!r}' for name in unfit)}, expected a network "
            f"of smp's {ARCHITECTURES[architecture].__name__} that gives one map of logits per class at the "
            "input's size: save it without that"
        )
    return changed


def _same(value: Any, default: Any) -> bool:
    return bool(value == (list(default) if isinstance(default, tuple) else default))


def weights_in(folder: Path) -> Path:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: has {CONFIG} and no weights, expected {' or '.join(WEIGHTS)}: save it again")
