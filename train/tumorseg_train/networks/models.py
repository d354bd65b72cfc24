"""The networks: architectures and encoders of segmentation-models-pytorch, which return logits."""

from __future__ import annotations

import contextlib
import difflib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch

from tumorseg_runtime.core.contract import IMAGENET_MEAN, IMAGENET_STD
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.networks.weights_file import read_state_dict

ARCHITECTURES = {
    "unetplusplus": smp.UnetPlusPlus,
    "unet": smp.Unet,
    "deeplabv3": smp.DeepLabV3,
    "deeplabv3plus": smp.DeepLabV3Plus,
    "dpt": smp.DPT,
    "fpn": smp.FPN,
    "linknet": smp.Linknet,
    "manet": smp.MAnet,
    "pan": smp.PAN,
    "pspnet": smp.PSPNet,
    "segformer": smp.Segformer,
    "upernet": smp.UPerNet,
}
MAX_PARAMETERS = 2**30  # 4 GB: a file of a few bytes may name a network that no memory holds
# smp's encoders whose weights are not those of timm's default for the same name.
SMPS_WEIGHTS = {"dpn68b": "dpn68b.mx_in1k"}
# Keys of a classifier's last layers: an encoder has none of them, so a weight file may bring them.
HEAD_PREFIXES = ("fc.", "classifier.", "head.", "last_linear.")


def build_model(
    architecture: str,
    encoder: str,
    *,
    channels: int,
    classes: int,
    options: Mapping[str, Any] | None = None,
) -> torch.nn.Module:
    """A network with random weights: float (N, channels, H, W) -> logits (N, classes, H, W).

    options: further arguments of smp's class, None for its defaults.
    Raises InputError for an unknown architecture, encoder or option, and for a network too large.
    """
    require_architecture(architecture)
    arguments = {
        "encoder_name": encoder, "encoder_weights": None, "in_channels": channels, "classes": classes,
        **(options or {}),
    }  # fmt: skip
    try:
        if options:
            with torch.device("meta"), _NumbersOfLinspace():  # shapes without numbers
                parameters = count_parameters(_construct(architecture, **arguments))
            if parameters > MAX_PARAMETERS:
                raise ValueError(f"{parameters} parameters, expected at most {MAX_PARAMETERS}")
        return _construct(architecture, **arguments)
    except (KeyError, ValueError, TypeError, RuntimeError, AttributeError, AssertionError) as error:
        if options:
            raise InputError(
                f"{architecture} cannot be built on encoder '{encoder}' with {dict(options)} "
                f"({_first_line(error)}): correct the options"
            ) from error
        raise InputError(
            f"{architecture} cannot be built on encoder '{encoder}' ({_first_line(error)}): "
            f"choose an encoder that segmentation-models-pytorch offers for {architecture}, such as resnet34"
        ) from error


class _NumbersOfLinspace(torch.overrides.TorchFunctionMode):
    """On the device meta, real numbers from torch.linspace: encoders read their drop rates from it."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return func(*args, **{**(kwargs or {}), **({"device": "cpu"} if func is torch.linspace else {})})


def require_architecture(name: str) -> None:
    """Pass if there is such an architecture, else InputError."""
    if name not in ARCHITECTURES:
        raise InputError(f"architecture is '{name}', expected one of {', '.join(ARCHITECTURES)}")


def require_encoder(name: str) -> None:
    """Pass if smp may have such an encoder (building tells, of timm's tu-...), else InputError."""
    known = smp.encoders.get_encoder_names()
    if name not in known and not name.startswith("tu-"):
        like = difflib.get_close_matches(name, known, n=3) or ["resnet34"]
        raise InputError(
            f"encoder is '{name}', expected one of segmentation-models-pytorch, such as {', '.join(like)}, "
            "or tu- and the name of one of timm's"
        )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _construct(architecture: str, **arguments: Any) -> torch.nn.Module:
    """smp's class, called without its advice."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`timm-` encoders are deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", "Mapping deprecated model name", UserWarning)  # of timm, renamed
        warnings.filterwarnings(
            "ignore", "Initializing zero-element tensors", UserWarning
        )  # a stage of no width
        warnings.filterwarnings("ignore", "Encoder does not have prefix tokens", UserWarning)  # DPT's readout
        kind: Any = ARCHITECTURES[architecture]
        model: torch.nn.Module
        if kind is smp.DPT and "dynamic_img_size" not in arguments:
            with contextlib.suppress(TypeError):  # of encoders without it: they are built below
                model = kind(**arguments, dynamic_img_size=True)  # else one size alone, of the pretraining
                return model
        model = kind(**arguments)
    return model


def encoder_normalisation(encoder: str, weights: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std (RGB, for intensities in 0..1) that the encoder's weights were trained with.

    timm's table is asked first, since it needs no network; smp's own are fetched only for its 'imagenet'
    weights. Random weights ('none') of an encoder that timm does not know take ImageNet's.
    Raises InputError where they would have to be guessed.
    """
    name = SMPS_WEIGHTS.get(encoder, encoder.removeprefix("tu-").removeprefix("timm-"))
    if encoder.startswith("timm-mobilenetv3"):  # smp's are TensorFlow's, those of timm's bare name others
        name = f"tf_{name}"
    config = timm.models.get_pretrained_cfg(name) if timm.models.is_model(name) else None
    if config is not None:
        return tuple(map(float, config.mean)), tuple(map(float, config.std))
    if weights == "none":
        return IMAGENET_MEAN, IMAGENET_STD
    try:
        params = smp.encoders.get_preprocessing_params(encoder, pretrained="imagenet")
    except (KeyError, ValueError, OSError) as error:
        raise InputError(
            f"the normalisation of encoder '{encoder}' is not known offline and could not be fetched "
            f"({type(error).__name__}): connect to the internet, choose an encoder that timm knows, "
            "or train from random weights (--encoder-weights none)"
        ) from error
    return tuple(map(float, params["mean"])), tuple(map(float, params["std"]))


def load_encoder_weights(model: torch.nn.Module, architecture: str, encoder: str, weights: str) -> None:
    """Fill the model's encoder: 'none' leaves random weights, 'imagenet' downloads, else a file is read.

    Raises InputError where the download fails, or a file lacks keys of the encoder or holds foreign ones.
    """
    if weights == "none":
        return
    if weights == "imagenet":
        state = _download(architecture, encoder)
    else:
        state = read_state_dict(Path(weights))
        state = {key: value for key, value in state.items() if not key.startswith(HEAD_PREFIXES)}
    assert isinstance(model.encoder, torch.nn.Module)
    load_exactly(model.encoder, state, f"encoder weights '{weights}' for {encoder}")


def _download(architecture: str, encoder: str) -> dict[str, torch.Tensor]:
    """State of the encoder with the ImageNet weights that smp fetches (3 input channels)."""
    try:
        source = _construct(architecture, encoder_name=encoder, encoder_weights="imagenet")
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
    ) as error:  # URLError and the hub's errors are OSErrors
        raise InputError(
            f"ImageNet weights for encoder '{encoder}' could not be fetched ({type(error).__name__}): "
            "give a local file (--encoder-weights FILE), train without (--encoder-weights none), "
            "or connect to the internet"
        ) from error
    assert isinstance(source.encoder, torch.nn.Module)
    return source.encoder.state_dict()


def load_exactly(module: torch.nn.Module, state: dict[str, torch.Tensor], what: str) -> None:
    """Load a state dict only if keys and shapes are exactly the module's; else InputError lists what differs.

    The comparison is ours because the encoders' own load_state_dict hides missing keys.
    """
    own = module.state_dict()
    counters = {key for key in own if key.endswith("num_batches_tracked")}  # absent in old files, unused
    missing = sorted(set(own) - set(state) - counters)
    unexpected = sorted(set(state) - set(own))
    shapes = [
        f"{key} has shape {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
        for key in sorted(set(own) & set(state))
        if own[key].shape != state[key].shape
    ]
    problems = [f"missing {_some(missing)}"] if missing else []
    problems += [f"unexpected {_some(unexpected)}"] if unexpected else []
    problems += [_some(shapes)] if shapes else []
    if problems:
        raise InputError(
            f"{what} do not fit: {'; '.join(problems)}: name the architecture and encoder they belong to"
        )
    merged = {**{key: own[key] for key in counters}, **state}
    torch.nn.Module.load_state_dict(module, merged, strict=True)


def _some(items: list[str], limit: int = 5) -> str:
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return f"{len(items)}: {', '.join(items[:limit])}{more}"


def count_parameters(model: torch.nn.Module) -> int:
    """Number of trained numbers in the model."""
    return sum(parameter.numel() for parameter in model.parameters())
