"""Every architecture of smp, with options of each kind: the same from a state dict as from smp itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tumorseg_export.checkpoint.derived import MARKS, READERS, UNSEEN, architecture_like
from tumorseg_export.checkpoint.smp_config import checked_options
from tumorseg_export.checkpoint.state_fit import fitting_network
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.networks.models import ARCHITECTURES, build_model

VIT = "tu-vit_tiny_patch16_224"
INSTANCE = {"type": "instancenorm", "affine": True}
BUILT: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{name: (name, VIT if name == "dpt" else "resnet18", {}) for name in ARCHITECTURES},
    "attention": ("unet", "resnet18", {"decoder_attention_type": "scse"}),
    "widths": ("unet", "resnet18", {"decoder_channels": [128, 64, 32, 16, 8]}),
    "no norm": ("unet", "resnet18", {"decoder_use_norm": False}),
    "shallow unet++": (
        "unetplusplus",
        "resnet18",
        {"encoder_depth": 3, "decoder_channels": [64, 32, 16], "decoder_attention_type": "scse"},
    ),
    "shallow manet": (
        "manet",
        "resnet18",
        {"encoder_depth": 4, "decoder_channels": [64, 32, 16, 8], "decoder_pab_channels": 16},
    ),
    "shallow linknet": ("linknet", "resnet18", {"encoder_depth": 3, "decoder_use_norm": False}),
    "shallow fpn": (
        "fpn",
        "resnet18",
        {
            "encoder_depth": 4,
            "upsampling": 2,
            "decoder_pyramid_channels": 64,
            "decoder_segmentation_channels": 32,
            "decoder_merge_policy": "cat",
        },
    ),
    "deeper pspnet": (
        "pspnet",
        "resnet18",
        {"encoder_depth": 4, "upsampling": 16, "psp_out_channels": 64, "decoder_use_norm": False},
    ),
    "shallow pan": ("pan", "resnet18", {"encoder_depth": 4, "decoder_channels": 16}),
    "separable": (
        "deeplabv3",
        "resnet18",
        {"encoder_depth": 4, "decoder_channels": 64, "decoder_aspp_separable": True},
    ),
    "not separable": (
        "deeplabv3plus",
        "resnet18",
        {"encoder_depth": 4, "decoder_channels": 64, "decoder_aspp_separable": False},
    ),
    "shallow upernet": (
        "upernet",
        "resnet18",
        {"encoder_depth": 4, "decoder_channels": 64, "decoder_use_norm": False},
    ),
    "shallow segformer": ("segformer", "resnet18", {"encoder_depth": 4, "decoder_segmentation_channels": 64}),
    "transformer": ("segformer", "mit_b0", {}),
    "shallow dpt": (
        "dpt",
        VIT,
        {
            "encoder_depth": 3,
            "decoder_intermediate_channels": [32, 64, 64],
            "decoder_fusion_channels": 64,
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BUILT)
def test_options_are_derived_from_keys_and_shapes(case: str) -> None:
    architecture, encoder, options = BUILT[case]
    network = build_model(architecture, encoder, channels=1, classes=2, options=options).eval()
    assert architecture_like(network.state_dict()) == architecture
    said: list[str] = []
    fitted = fitting_network(Path("w.pth"), network.state_dict(), architecture, encoder, {}, said.append)
    assert (fitted.options, fitted.channels, fitted.classes) == (options, 1, 2)
    image = torch.randn(1, 1, 128, 128)
    with torch.inference_mode():
        assert torch.equal(fitted.model(image), network(image))
    assert any(line.startswith("derived from keys and shapes: ") for line in said) == bool(options)
    assert any("where keys and shapes tell nothing" in line for line in said) == (architecture in UNSEEN)


def test_every_architecture_has_its_marks_and_its_reader() -> None:
    assert set(MARKS) == set(READERS) == set(ARCHITECTURES)
    assert set(UNSEEN) < set(ARCHITECTURES)
    assert architecture_like({"decoder.fpn_stages.0.weight": torch.ones(1)}) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "encoder", "options", "message"),
    [
        ("dpt", VIT, {"decoder_readout": "add"}, "decoder_readout=add and =ignore share: say it by --option"),
        ("unet", "resnet18", {"decoder_use_norm": INSTANCE}, "no running statistics, which layernorm, and"),
        ("pspnet", "vgg11", {"encoder_depth": 3}, "encoder_depth 3 and 4 and 5, which compute different"),
    ],
)
def test_what_leaves_one_trace_for_several_networks_is_refused_until_it_is_said(
    architecture: str, encoder: str, options: dict[str, Any], message: str
) -> None:
    network = build_model(architecture, encoder, channels=3, classes=1, options=options).eval()
    state = network.state_dict()
    with pytest.raises(InputError, match=message):
        fitting_network(Path("w.pth"), state, architecture, encoder, {}, lambda line: None)
    fitted = fitting_network(Path("w.pth"), state, architecture, encoder, options, lambda line: None)
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(fitted.model(image), network(image))


def test_norms_of_inplace_abn_are_not_taken_for_batchnorm() -> None:
    state = build_model("unet", "resnet18", channels=3, classes=1).state_dict()
    left = {
        key: value
        for key, value in state.items()
        if not (key.startswith("decoder.") and key.endswith("num_batches_tracked"))
    }
    with pytest.raises(InputError, match="count no batches while others do, as inplace_abn leaves them"):
        fitting_network(Path("w.pth"), left, "unet", "resnet18", {}, lambda line: None)
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert fitting_network(Path("w.pth"), old, "unet", "resnet18", {}, lambda line: None).options == {}


@pytest.mark.parametrize(
    ("key", "tensor"),
    [
        ("decoder.blocks.2000000000.conv1.0.weight", torch.ones(1)),
        (f"decoder.blocks.{'9' * 5000}.conv1.0.weight", torch.ones(1)),
        ("decoder.blocks.0.conv1.0.weight", torch.ones(())),
        ("segmentation_head.0.weight", torch.ones(())),
        ("segmentation_head.0.weight", torch.ones(0, 16, 3, 3)),
    ],
)
def test_strange_keys_and_shapes_are_one_line(key: str, tensor: torch.Tensor) -> None:
    state = build_model("unet", "resnet18", channels=3, classes=1).state_dict()
    with pytest.raises(InputError, match=r"for unet on resnet18 do not fit|cannot be built"):
        fitting_network(Path("w.pth"), {**state, key: tensor}, "unet", "resnet18", {}, lambda line: None)


@pytest.mark.parametrize(
    ("given", "encoder", "message"),
    [
        ({"decoder_use_norm": "inplace"}, "resnet18", "the norm of the package inplace_abn"),
        ({"decoder_use_batchnorm": {"type": "inplace"}}, "resnet18", "the norm of the package inplace_abn"),
        ({"dynamic_img_size": True}, "resnet18", "has dynamic_img_size = True"),
        ({"activation": "softmax"}, "tu-resnet18", "has activation = 'softmax'"),
    ],
)
def test_options_that_cannot_be_kept_are_refused(given: dict[str, Any], encoder: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked_options("config.json", "unet", encoder, given)


def test_an_option_that_smp_does_not_know_is_the_encoders_where_timm_makes_it() -> None:
    given = {"img_size": 256, "activation": None, "psp_use_batchnorm": True}
    expected = {"img_size": 256, "decoder_use_norm": True}
    assert checked_options("config.json", "pspnet", "tu-vit_tiny_patch16_224", given) == expected
    with pytest.raises(InputError, match=r"tu-resnet18' with \{'img_size': 256\} \(.*img_size"):
        build_model("unet", "tu-resnet18", channels=3, classes=1, options={"img_size": 256})
