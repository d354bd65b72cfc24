"""Folders that save_pretrained of segmentation-models-pytorch wrote, which say themselves what they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch

from tumorseg_export.checkpoint.foreign import CheckpointOptions, open_foreign
from tumorseg_runtime.bundle.bundle import sha256_of
from tumorseg_runtime.core.errors import InputError


def pretrained(folder: Path, network: torch.nn.Module, **config: object) -> Path:
    """A folder as save_pretrained writes it, with some entries of its config changed."""
    network.save_pretrained(folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **config}))
    return folder


def test_folder_of_save_pretrained_says_all_itself(tmp_path: Path) -> None:
    network = smp.Unet(
        "resnet18", encoder_weights=None, classes=3, decoder_interpolation="bilinear", activation="sigmoid"
    ).eval()
    folder = pretrained(tmp_path / "smp", network)
    said: list[str] = []
    flags = CheckpointOptions(classes=("a", "b", "c"), images="phantoms", size=(64, 64))
    checkpoint = open_foreign(folder, flags, said.append)
    assert (checkpoint.architecture, checkpoint.encoder) == ("unet", "resnet18")
    assert checkpoint.options == {"decoder_interpolation": "bilinear"}
    assert checkpoint.sha256 == sha256_of(folder / "model.safetensors")
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(torch.sigmoid(checkpoint.load()(image)), network(image), atol=1e-6)
    assert any(line.startswith("the activation sigmoid is left off") for line in said)
    assert not any("defaults" in line for line in said)


@pytest.mark.parametrize(
    ("config", "flags", "message"),
    [
        ({"_model_class": "FCN"}, {}, "is a FCN, expected one of UnetPlusPlus, Unet, DeepLabV3"),
        (
            {"_model_class": "Linknet", "encoder_depth": 4},
            {},
            "has decoder_attention_type = None, decoder_channels",
        ),
        ({"activation": "tanh"}, {}, "has activation = 'tanh', expected a network of smp's Unet"),
        ({"activation": "softmax2d"}, {}, "has one class, whose softmax is 1 everywhere"),
        ({"something": 3}, {}, "has something = 3"),
        ({"in_channels": 1}, {}, "has 3 channels and 1 classes, config.json says 1 and 1"),
        (
            {"decoder_interpolation": "best"},
            {},
            r"512x512 pixels gave .*best.*, expected logits \(1, 1, 512, 512\)",
        ),
        ({"decoder_attention_type": "best"}, {}, "unet cannot be built on encoder 'resnet18' with"),
        ({"decoder_channels": [64, 32, 16, 8]}, {}, "unet cannot be built on encoder 'resnet18' with"),
        ({"encoder_name": "resnet34"}, {}, "for unet on resnet34 do not fit"),
        ({}, {"architecture": "deeplabv3"}, "--arch is deeplabv3, config.json says unet"),
        ({}, {"encoder": "resnet34"}, "--encoder is resnet34, config.json says resnet18"),
    ],
)
def test_folder_that_cannot_be_kept_is_refused(
    config: dict[str, object], flags: dict[str, str], message: str, unet: torch.nn.Module, tmp_path: Path
) -> None:
    folder = pretrained(tmp_path / "smp", unet, **config)
    with pytest.raises(InputError, match=message):
        open_foreign(folder, CheckpointOptions(**{"images": "phantoms", **flags}))  # type: ignore[arg-type]


def test_classification_head_of_a_folder_is_left_out(tmp_path: Path) -> None:
    network = smp.Unet("resnet18", encoder_weights=None, aux_params={"classes": 2}).eval()
    said: list[str] = []
    flags = CheckpointOptions(images="phantoms", size=(64, 64))
    checkpoint = open_foreign(pretrained(tmp_path / "smp", network), flags, said.append)
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(checkpoint.load()(image), network(image)[0])
    assert any(line.startswith("aux_params are left off") for line in said)
    assert any("classification_head.3.weight" in line and line.startswith("left:") for line in said)


def transform(folder: Path, *steps: dict[str, object], key: str = "eval") -> Path:
    """A transform beside the network, as Albumentations' save_pretrained writes it."""
    values = {"__version__": "2.0.8", "transform": {"__class_fullname__": "Compose", "transforms": steps}}
    (folder / f"albumentations_config_{key}.json").write_text(json.dumps(values))
    return folder


RESIZE: dict[str, object] = {"__class_fullname__": "Resize", "height": 64, "width": 96}
NORMALIZE: dict[str, object] = {
    "__class_fullname__": "albumentations.augmentations.transforms.Normalize",
    "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "max_pixel_value": 255.0, "p": 1.0,
}  # fmt: skip


def test_normalisation_and_size_beside_the_weights_are_used(unet: torch.nn.Module, tmp_path: Path) -> None:
    folder = transform(pretrained(tmp_path, unet), RESIZE, NORMALIZE, {"__class_fullname__": "ToTensorV2"})
    said: list[str] = []
    contract = open_foreign(folder, CheckpointOptions(images="phantoms"), said.append).contract
    assert (contract.mean, contract.std) == ((0.5,) * 3, (0.25,) * 3)
    assert (contract.height, contract.width) == (64, 96)
    assert "mean and std: albumentations_config_eval.json say mean 0.5,0.5,0.5 and std 0.25,0.25,0.25" in said
    transform(folder, {**NORMALIZE, "mean": [127.5], "std": [51.0], "max_pixel_value": 1.0})
    contract = open_foreign(folder, CheckpointOptions(images="phantoms", size=(64, 64))).contract
    assert contract.mean == pytest.approx((0.5,) * 3)
    assert contract.std == pytest.approx((0.2,) * 3)


@pytest.mark.parametrize(
    ("steps", "flags", "message"),
    [
        ([NORMALIZE], {"mean": (0.4,) * 3, "std": (0.25,) * 3}, "--mean and --std say mean 0.4.* contradict"),
        ([RESIZE], {}, "has no Normalize, so the input's mean and std are not known: give --mean"),
        (
            [{"__class_fullname__": "CLAHE"}, NORMALIZE],
            {},
            r"eval\.json: has CLAHE, expected Resize and Norm",
        ),
        ([{**NORMALIZE, "normalization": "image"}], {}, "has Normalize with normalization 'image'"),
        ([{**NORMALIZE, "mean": "x"}], {}, "is no configuration of Albumentations' save_pretrained"),
        ([NORMALIZE, NORMALIZE], {}, "has two Normalize"),
        (
            [{"__class_fullname__": "LongestMaxSize"}, NORMALIZE],
            {"size": None},
            "places the image by Longest",
        ),
    ],
)
def test_transform_that_cannot_be_kept_is_refused(
    steps: list[dict[str, object]],
    flags: dict[str, object],
    message: str,
    unet: torch.nn.Module,
    tmp_path: Path,
) -> None:
    folder = transform(pretrained(tmp_path, unet), *steps)
    options = {"images": "phantoms", "size": (64, 64), **flags}
    with pytest.raises(InputError, match=message):
        open_foreign(folder, CheckpointOptions(**options))  # type: ignore[arg-type]


def test_two_transforms_that_differ_are_refused(unet: torch.nn.Module, tmp_path: Path) -> None:
    folder = transform(pretrained(tmp_path, unet), RESIZE, NORMALIZE)
    transform(folder, {"__class_fullname__": "RandomFog"}, {**NORMALIZE, "std": [1.0] * 3}, key="train")
    with pytest.raises(InputError, match=r"eval\.json say .*train\.json say .*contradict"):
        open_foreign(folder, CheckpointOptions(images="phantoms", size=(64, 64)))


def test_old_name_of_an_option_and_old_weights(
    unet: torch.nn.Module, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    folder = pretrained(tmp_path / "smp", unet, decoder_use_batchnorm=True)
    values = json.loads((folder / "config.json").read_text())
    del values["decoder_use_norm"]
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "model.safetensors").unlink()
    flags = CheckpointOptions(images="phantoms", size=(64, 64))
    with pytest.raises(InputError, match=r"no weights, expected model\.safetensors or pytorch_model\.bin"):
        open_foreign(folder, flags)
    torch.save(state, folder / "pytorch_model.bin")
    checkpoint = open_foreign(folder, flags)
    assert checkpoint.options == {}
    own = checkpoint.load().state_dict()
    assert own.keys() == state.keys()
    assert all(torch.equal(own[key], state[key]) for key in state)
    (folder / "config.json").write_text("{}")
    with pytest.raises(InputError, match="is no config of smp's save_pretrained"):
        open_foreign(folder, flags)
