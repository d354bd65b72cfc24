"""What keys and shapes of a state dict say of a network of smp: its architecture, and options of its class.

Options without a trace in them keep smp's defaults (`UNSEEN`), which is said; those that leave one trace for
several values are refused, until a folder's config.json or a flag decides.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from segmentation_models_pytorch.encoders import is_equivalent_to_timm_universal

from tumorseg_export.checkpoint.state_file import State
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.networks.models import ARCHITECTURES

# Keys that begin like this are of this architecture's decoder. The first that fits: some have parts alike.
MARKS = {
    "dpt": ("decoder.reassemble_blocks.",),
    "segformer": ("decoder.mlp_stage.",),
    "upernet": ("decoder.fpn_lateral_blocks.",),
    "pan": ("decoder.fpa.",),
    "fpn": ("decoder.p5.",),
    "pspnet": ("decoder.psp.",),
    "manet": ("decoder.center.top_conv.",),
    "linknet": ("decoder.blocks.0.block.",),
    "unetplusplus": ("decoder.blocks.x_0_0.",),
    "deeplabv3plus": ("decoder.block1.",),
    "deeplabv3": ("decoder.aspp.", "decoder.0.convs."),
    "unet": ("decoder.blocks.0.conv1.",),
}
# Options that change what a network computes and neither its keys nor its shapes.
UNSEEN = {
    "unet": ("decoder_interpolation",),
    "unetplusplus": ("decoder_interpolation",),
    "manet": ("decoder_interpolation",),
    "fpn": ("decoder_interpolation",),
    "pan": ("decoder_interpolation", "encoder_output_stride"),
    "deeplabv3": ("encoder_output_stride", "decoder_atrous_rates"),
    "deeplabv3plus": ("encoder_output_stride", "decoder_atrous_rates"),
    "dpt": ("encoder_output_indices",),
}
# smp 0.4's decoder of UPerNet had other layers; this key of it later ones lack.
UPERNET_04 = "decoder.fpn_bottleneck."
PREFIX_TOKENS = tuple(f"encoder.model.{name}" for name in ("cls_token", "reg_token", "dist_token"))
Options = dict[str, Any]


class Unclear(str):
    """In place of an option's value: what is there, and the values that it may stand for."""


@dataclasses.dataclass(frozen=True)
class Derived:
    """depths: those of the encoder that the decoder's keys allow; its widths must tell which."""

    options: Options
    depths: tuple[int, ...]


def architecture_like(state: State) -> str | None:
    """The architecture whose decoder has these keys, None where it is no decoder of smp's."""
    for architecture, marks in MARKS.items():
        if any(key.startswith(marks) for key in state):
            return architecture
    return None


def refuse_upernet_of_04(source: Path | str) -> NoReturn:
    """Raise InputError."""
    raise InputError(
        f"{source}: is a UPerNet of smp 0.4, whose decoder has other layers than that of later versions, "
        "which are supported: train it again with one of them"
    )


def of_timm(encoder: str) -> bool:
    """Whether smp takes this encoder from timm whole, and hands it options that it does not know itself."""
    return encoder.startswith("tu-") or is_equivalent_to_timm_universal(encoder)


def defaults_of(architecture: str) -> Options:
    """Arguments of smp's class with their defaults; `self` and `**kwargs` are none."""
    parameters = inspect.signature(ARCHITECTURES[architecture].__init__).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not one.empty}


def not_defaults(architecture: str, options: Mapping[str, Any]) -> Options:
    """The options that are not the class's defaults, whichever of several ways they are written in."""
    defaults = defaults_of(architecture)
    return {
        name: value
        for name, value in options.items()
        if not _same(value, defaults.get(name, inspect.Parameter))
    }


def _same(value: Any, default: Any) -> bool:
    if default == "batchnorm":
        return value is True or value == default
    return bool(value == (list(default) if isinstance(default, tuple) else default))


def derive(file: Path, state: State, architecture: str, said: Mapping[str, Any]) -> Derived:
    """What keys and shapes tell beside the options that are `said`.

    Raises InputError where one of them is unclear. Of a state dict that is not this architecture's nothing is
    derived: the comparison with the network tells what is missing.
    """
    try:
        found = READERS[architecture](state)
    except (KeyError, IndexError):
        found = Derived({}, (int(defaults_of(architecture)["encoder_depth"]),))
    for name, value in found.options.items():
        if isinstance(value, Unclear) and name not in said:
            raise InputError(
                f"{file}: {value}: say it by --option {name}=VALUE, or give a folder with config.json"
            )
    options = {name: value for name, value in found.options.items() if name not in said}
    return Derived(options, (said["encoder_depth"],) if "encoder_depth" in said else found.depths)


def output_scale(architecture: str, depth: int) -> Options:
    """The upsampling that brings the logits to the input's size, where it depends on the encoder's depth."""
    if architecture == "pspnet":
        return {"upsampling": 2**depth}
    if architecture == "fpn":
        return {"upsampling": 2 ** max(depth - 3, 0)}
    return {}


def _unet(state: State) -> Derived:
    count = _count(state, r"decoder\.blocks\.(\d+)\.")
    return Derived(
        {**_blocks(state, [f"decoder.blocks.{i}" for i in range(count)]), **_attention(state)}, (count,)
    )


def _unetplusplus(state: State) -> Derived:
    count = _count(state, r"decoder\.blocks\.x_0_(\d+)\.")
    blocks = [f"decoder.blocks.x_0_{i}" for i in range(count)]
    return Derived({**_blocks(state, blocks), **_attention(state)}, (count,))


def _manet(state: State) -> Derived:
    count = _count(state, r"decoder\.blocks\.(\d+)\.")
    attention = {"decoder_pab_channels": _filters(state, "decoder.center.top_conv")}
    return Derived({**_blocks(state, [f"decoder.blocks.{i}" for i in range(count)]), **attention}, (count,))


def _linknet(state: State) -> Derived:
    norm = {"decoder_use_norm": _norm(state, "decoder.blocks.0.block.0")}
    return Derived(norm, (_count(state, r"decoder\.blocks\.(\d+)\."),))


def _fpn(state: State) -> Derived:
    filters = _filters(state, "decoder.seg_blocks.0.block.0.block.0")
    merged = state["segmentation_head.0.weight"].shape[1]
    options = {
        "decoder_pyramid_channels": _filters(state, "decoder.p5"),
        "decoder_segmentation_channels": filters,
        "decoder_merge_policy": "add" if merged == filters else "cat",
    }
    return Derived(options, (5, 4, 3))


def _pspnet(state: State) -> Derived:
    options = {
        "psp_out_channels": _filters(state, "decoder.conv.0"),
        "decoder_use_norm": _norm(state, "decoder.conv"),
    }
    return Derived(options, (3, 4, 5))


def _pan(state: State) -> Derived:
    depth = 3 + sum(any(key.startswith(f"decoder.{gau}.") for key in state) for gau in ("gau2", "gau3"))
    return Derived({"decoder_channels": _filters(state, "decoder.fpa.mid.0.conv")}, (depth,))


def _deeplabv3(state: State) -> Derived:
    options = {
        "decoder_channels": _filters(state, "decoder.conv"),
        "decoder_aspp_separable": "decoder.aspp.convs.1.0.0.weight" in state,
    }
    return Derived(options, (5, 4, 3))


def _deeplabv3plus(state: State) -> Derived:
    options = {
        "decoder_channels": _filters(state, "decoder.aspp.0.project.0"),
        "decoder_aspp_separable": "decoder.aspp.0.convs.1.0.0.weight" in state,
    }
    return Derived(options, (5, 4, 3))


def _upernet(state: State) -> Derived:
    options = {
        "decoder_channels": _filters(state, "decoder.fusion_block.0"),
        "decoder_use_norm": _norm(state, "decoder.fusion_block"),
    }
    return Derived(options, (_count(state, r"decoder\.feature_norms\.(\d+)\.") + 1,))


def _segformer(state: State) -> Derived:
    stages = _count(state, r"decoder\.mlp_stage\.(\d+)\.")
    options = {"decoder_segmentation_channels": _filters(state, "decoder.fuse_stage.0")}
    return Derived(options, (stages, stages + 1))  # encoders that begin at a quarter of the size lack a stage


def _dpt(state: State) -> Derived:
    count = _count(state, r"decoder\.reassemble_blocks\.(\d+)\.")
    projections = [f"decoder.reassemble_blocks.{i}.project_to_out_channel" for i in range(count)]
    readout = "ignore" if not any(token in state for token in PREFIX_TOKENS) else Unclear(
        "its decoder has no projection of the class token, which decoder_readout=add and =ignore share"
    )  # fmt: skip
    options = {
        "decoder_readout": "cat" if "decoder.projection_blocks.0.project.0.weight" in state else readout,
        "decoder_intermediate_channels": [_filters(state, key) for key in projections],
        "decoder_fusion_channels": _filters(state, "decoder.fusion_blocks.0.project"),
    }
    return Derived(options, (count,))


READERS: dict[str, Callable[[State], Derived]] = {
    "deeplabv3": _deeplabv3,
    "deeplabv3plus": _deeplabv3plus,
    "dpt": _dpt,
    "fpn": _fpn,
    "linknet": _linknet,
    "manet": _manet,
    "pan": _pan,
    "pspnet": _pspnet,
    "segformer": _segformer,
    "unet": _unet,
    "unetplusplus": _unetplusplus,
    "upernet": _upernet,
}


def _blocks(state: State, blocks: list[str]) -> Options:
    return {
        "decoder_channels": [_filters(state, f"{block}.conv1.0") for block in blocks],
        "decoder_use_norm": _norm(state, f"{blocks[-1]}.conv1"),
    }


def _attention(state: State) -> Options:
    scse = any(".attention1.attention.cSE." in key for key in state)
    return {"decoder_attention_type": "scse" if scse else None}


def _count(state: State, pattern: str) -> int:
    """How many numbers from 0 on the keys have; a stranger's may have others, and of any length."""
    found = {match[1] for key in state if (match := re.match(pattern, key))}
    return next(number for number in range(len(found) + 1) if str(number) not in found)


def _filters(state: State, layer: str) -> int:
    return int(state[f"{layer}.weight"].shape[0])


def _norm(state: State, block: str) -> Any:
    """`decoder_use_norm`, of a convolution `block`.0 and what follows it, `block`.1."""
    norm = {key.rpartition(".")[2] for key in state if key.startswith(f"{block}.1.")}
    if f"{block}.0.bias" in state:
        return False
    if norm and "running_mean" not in norm:
        return Unclear(
            f"the norms of its decoder ({block}.1) have weights and no running statistics, which layernorm, "
            'and {"type": "instancenorm", "affine": true} share'
        )
    counted = any(key.endswith("num_batches_tracked") for key in state)
    if counted and "num_batches_tracked" not in norm:
        return Unclear(
            f"the norms of its decoder ({block}.1) count no batches while others do, as inplace_abn leaves "
            "them, which has another formula than batchnorm"
        )
    return "batchnorm"
