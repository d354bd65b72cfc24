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
        ({"_model_class": "FPN"}, {}, "is a FPN, expected one of UnetPlusPlus, Unet, DeepLabV3"),
        ({"activation": "softmax2d"}, {}, "has activation = 'softmax2d', expected a network of smp's Unet"),
        ({"aux_params": {"classes": 2}}, {}, "has aux_params"),
        ({"something": 3}, {}, "has something = 3"),
        ({"in_channels": 1}, {}, "has 3 channels and 1 classes, config.json says 1 and 1"),
        ({"decoder_interpolation": "best"}, {}, r"pixels gave .*best.*, expected logits \(1, 1, 64, 64\)"),
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
