"""`config.json` of a folder that smp's save_pretrained wrote: which network its weights are for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tumorseg_export.checkpoint.decision import ACTIVATIONS
from tumorseg_export.checkpoint.derived import defaults_of, of_timm, refuse_upernet_of_04
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.records import Fields, Format
from tumorseg_train.networks.models import ARCHITECTURES

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # newest form first
# Entries that are not options of the network.
NOT_OPTIONS = ("encoder_name", "encoder_weights", "in_channels", "classes")
OLD_NAMES = {  # of options, in earlier versions of smp and still taken by later ones; the values are the same
    "decoder_use_batchnorm": "decoder_use_norm",
    "psp_use_batchnorm": "decoder_use_norm",
    "upscale_mode": "decoder_interpolation",
}

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
    """What a config.json of smp says; `options` are arguments of smp's class, under their present names.

    rule: what its activation says of the decision.
    """

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
    given = {
        name: value for name, value in values.items() if not name.startswith("_") and name not in NOT_OPTIONS
    }
    activation = given.get("activation")
    rule = ACTIVATIONS.get(activation) if isinstance(activation, str) else None
    if rule is not None:
        log(f"the activation {activation} is left off: artefacts give logits, which the rule {rule} decides")
        given["activation"] = None
    if given.pop("aux_params", None) is not None:
        log("aux_params are left off: the classification head is a second output, which is not exported")
    options = checked_options(path, known[name], encoder, given)
    return Config(known[name], encoder, channels, classes, options, rule)


def checked_options(
    source: Path | str, architecture: str, encoder: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of smp's class under their present names; raises InputError for what cannot be kept.

    Names that the class does not know belong to its encoder, where that is timm's.
    """
    options = {name: value for name, value in given.items() if name not in OLD_NAMES}
    old = {OLD_NAMES[name]: value for name, value in given.items() if name in OLD_NAMES}
    options |= {name: value for name, value in old.items() if value is not None}  # smp heeds it first, too
    if options.get("activation") in (None, "identity"):
        options.pop("activation", None)
    if architecture == "upernet" and "decoder_pyramid_channels" in options:
        refuse_upernet_of_04(source)
    defaults = defaults_of(architecture)
    unfit = {
        "activation",
        "aux_params",
        *NOT_OPTIONS,
        *(set() if of_timm(encoder) else set(options) - set(defaults)),
    }
    if wrong := sorted(unfit & set(options)):
        raise InputError(
            f"{source}: has {', '.join(f'{name} = {options[name]!r}' for name in wrong)}, expected a network "
            f"of smp's {ARCHITECTURES[architecture].__name__} that gives one map of logits per class at the "
            "input's size: save it without that"
        )
    norm = options.get("decoder_use_norm")
    if "inplace" in (norm, norm.get("type") if isinstance(norm, Mapping) else None):
        raise InputError(
            f"{source}: has decoder_use_norm = {norm!r}, the norm of the package inplace_abn, which is not "
            "supported"
        )
    return options


def weights_in(folder: Path) -> Path:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: has {CONFIG} and no weights, expected {' or '.join(WEIGHTS)}: save it again")
