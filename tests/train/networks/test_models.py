import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save_file

from tumorseg_runtime.core.contract import IMAGENET_MEAN, IMAGENET_STD
from tumorseg_runtime.core.errors import InputError
from tumorseg_train.networks.models import (
    ARCHITECTURES,
    build_model,
    count_parameters,
    encoder_normalisation,
    load_encoder_weights,
    load_exactly,
    require_encoder,
)
from tumorseg_train.networks.weights_file import read_state_dict


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gives_logits_of_the_input_size(architecture: str) -> None:
    encoder = "tu-vit_tiny_patch16_224" if architecture == "dpt" else "resnet18"
    with torch.random.fork_rng():
        torch.manual_seed(0)  # with some others all logits of a network that was not trained are positive
        model = build_model(architecture, encoder, channels=3, classes=2).eval()
        image = torch.randn(2, 3, 128, 160)
    with torch.inference_mode():
        logits = model(image)
    assert logits.shape == (2, 2, 128, 160)
    assert (logits < 0).any()  # a sigmoid at the end would leave none
    assert (logits.abs() > 0).any()


def test_unknown_names_are_refused_with_what_there_is() -> None:
    with pytest.raises(
        InputError, match="'segmenter', expected one of unetplusplus, unet, deeplabv3, deeplabv3plus"
    ):
        build_model("segmenter", "resnet34", channels=3, classes=1)
    with pytest.raises(InputError, match="encoder 'resnet35'"):
        build_model("unet", "resnet35", channels=3, classes=1)


def test_encoders_of_timm_are_built_without_a_warning() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build_model("unet", "timm-tf_efficientnet_lite0", channels=3, classes=1)
        warnings.warn("another", DeprecationWarning, stacklevel=1)
    assert [str(one.message) for one in caught] == ["another"]


def test_options_reach_the_network_and_wrong_ones_are_refused() -> None:
    model = build_model("deeplabv3", "resnet18", channels=3, classes=1, options={"encoder_output_stride": 16})
    dilations = {module.dilation for module in model.encoder.modules() if isinstance(module, torch.nn.Conv2d)}
    assert dilations == {(1, 1), (2, 2)}
    with pytest.raises(InputError, match=r"with \{'encoder_output_stride': 7\} .*correct the options"):
        build_model("deeplabv3", "resnet18", channels=3, classes=1, options={"encoder_output_stride": 7})


def test_options_of_a_network_whose_encoder_reads_numbers_while_it_is_built() -> None:
    model = build_model("fpn", "mit_b0", channels=3, classes=1, options={"decoder_merge_policy": "cat"})
    assert next(model.parameters()).device.type == "cpu"
    with pytest.raises(InputError, match="expected at most 1073741824"):
        build_model("fpn", "mit_b0", channels=3, classes=1, options={"decoder_pyramid_channels": 2**20})


def test_normalisation_is_the_encoders_own() -> None:
    for weights in ("none", "imagenet", "weights.safetensors"):
        assert encoder_normalisation("resnet34", weights) == (IMAGENET_MEAN, IMAGENET_STD)
        assert encoder_normalisation("timm-tf_efficientnet_lite0", weights)[0] == (0.5, 0.5, 0.5)


def test_normalisation_of_every_encoder_of_smp_is_that_of_the_weights_that_smp_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a network: 0.5 for what TensorFlow trained, MXNet's own for DPN, ImageNet's, or a refusal."""

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.get_preprocessing_params", offline)
    mxnet = (124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3
    sizes = ("large_075", "large_100", "large_minimal_100", "small_075", "small_100", "small_minimal_100")
    handed_to_timm = [  # names that smp takes, and lists no longer
        *(f"timm-mobilenetv3_{size}" for size in sizes),
        *("timm-gernet_s", "timm-res2net50_26w_4s", "timm-res2next50", "timm-resnest50d", "timm-regnety_320"),
    ]
    refused = set()
    for encoder in (*smp.encoders.get_encoder_names(), *handed_to_timm):
        if encoder.startswith("dpn"):
            expected = mxnet
        elif "mobilenetv3" in encoder or "_lite" in encoder:
            expected = (0.5,) * 3, (0.5,) * 3
        else:
            expected = IMAGENET_MEAN, IMAGENET_STD
        try:
            found = encoder_normalisation(encoder, "imagenet")
        except InputError:
            refused.add(encoder.rstrip("0123456789"))
        else:
            np.testing.assert_allclose(found, expected, atol=1e-3, err_msg=encoder)
    assert refused == {
        *("efficientnet-b", "timm-efficientnet-b", "timm-efficientnet-l", "mit_b", "mobilenet_v", "xception"),
        *("inceptionresnetv", "inceptionv", "resnext101_32x48d"),
        *("se_resnet", "se_resnext50_32x4d", "se_resnext101_32x4d"),
    }


def test_normalisation_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.get_preprocessing_params", offline)
    assert encoder_normalisation("mit_b0", "none") == (IMAGENET_MEAN, IMAGENET_STD)
    with pytest.raises(InputError, match="normalisation of encoder 'mit_b0' is not known offline"):
        encoder_normalisation("mit_b0", "weights.safetensors")


def test_encoder_weights_come_from_a_file(tmp_path: Path) -> None:
    source = build_model("unet", "resnet18", channels=3, classes=1)
    state = {**source.encoder.state_dict(), "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}
    save_file(state, tmp_path / "encoder.safetensors")
    model = build_model("unet", "resnet18", channels=3, classes=1)
    assert not torch.equal(model.encoder.conv1.weight, source.encoder.conv1.weight)
    load_encoder_weights(model, "unet", "resnet18", str(tmp_path / "encoder.safetensors"))
    assert all(
        torch.equal(value, model.encoder.state_dict()[key])
        for key, value in source.encoder.state_dict().items()
    )


def test_weights_of_another_encoder_are_refused_with_a_list(tmp_path: Path) -> None:
    source = build_model("unet", "resnet34", channels=3, classes=1)
    save_file(source.encoder.state_dict(), tmp_path / "resnet34.safetensors")
    model = build_model("unet", "resnet18", channels=3, classes=1)
    with pytest.raises(InputError, match=r"unexpected \d+: layer1\.2\.bn1\.bias"):
        load_encoder_weights(model, "unet", "resnet18", str(tmp_path / "resnet34.safetensors"))


def test_a_missing_key_is_not_hidden() -> None:
    model = build_model("unet", "resnet18", channels=3, classes=1)
    state = model.encoder.state_dict()
    del state["layer1.0.conv1.weight"]
    with pytest.raises(InputError, match=r"missing 1: layer1\.0\.conv1\.weight"):
        load_exactly(model.encoder, state, "weights")


def test_a_wrong_shape_is_told_with_both_shapes() -> None:
    model = build_model("unet", "resnet18", channels=3, classes=1)
    state = model.state_dict()
    state["segmentation_head.0.bias"] = torch.zeros(4)
    with pytest.raises(InputError, match=r"segmentation_head\.0\.bias has shape \(4,\), expected \(1,\)"):
        load_exactly(model, state, "weights")


def test_weights_that_cannot_be_fetched_name_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(**_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setitem(ARCHITECTURES, "unet", offline)
    model = torch.nn.Module()
    with pytest.raises(InputError, match=r"give a local file .*, train without"):
        load_encoder_weights(model, "unet", "resnet18", "imagenet")


@pytest.mark.fault
@pytest.mark.parametrize("content", [b"not a pickle", pickle.dumps({"a": print})])
def test_damaged_and_unsafe_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as weights"):
        read_state_dict(path)


def test_a_pickle_of_other_things_than_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "checkpoint.pth")
    with pytest.raises(InputError, match="holds no plain state_dict"):
        read_state_dict(tmp_path / "checkpoint.pth")


def test_counts_parameters() -> None:
    assert count_parameters(torch.nn.Conv2d(3, 8, 3)) == 3 * 8 * 9 + 8


def test_a_network_that_no_memory_holds_is_refused_before_it_is_made() -> None:
    with pytest.raises(InputError, match=r"parameters, expected at most 1073741824"):
        build_model(
            "unet", "resnet18", channels=3, classes=1, options={"decoder_channels": [2**20, 128, 64, 32, 16]}
        )


def test_an_unknown_encoder_is_told_the_nearest() -> None:
    require_encoder("tu-mobilenetv3_small_100")
    with pytest.raises(InputError, match=r"encoder is 'resnet35', expected .*, such as resnet50, resnet34, "):
        require_encoder("resnet35")
