"""Checkpoints that this project did not train: state dicts of every wrapping, and what must be told."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tumorseg_export.bundle.export import export_checkpoint
from tumorseg_export.checkpoint import normalisation
from tumorseg_export.checkpoint.foreign import CheckpointOptions, open_checkpoint, open_foreign
from tumorseg_runtime.bundle.bundle import Bundle, sha256_of
from tumorseg_runtime.core.contract import IMAGENET_MEAN, IMAGENET_STD, Contract
from tumorseg_runtime.core.errors import BundleError, InputError
from tumorseg_runtime.images.read import write_png
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_train.networks.models import build_model
from tumorseg_train.networks.run import Run

State = dict[str, torch.Tensor]
UNET = CheckpointOptions(
    architecture="unet", encoder="resnet18", images="phantoms", size=(64, 64), threshold=0.5
)


def options(**changes: object) -> CheckpointOptions:
    return CheckpointOptions(**{**vars(UNET), **changes})  # type: ignore[arg-type]


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def equal(model: torch.nn.Module, state: State) -> bool:
    own = model.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[key], state[key]) for key in state)


LIGHTNING = {"epoch": 3, "pytorch-lightning_version": "2.5.0", "optimizer_states": [{"state": {}}]}
FORMS: dict[str, Callable[[State], object]] = {
    "plain": lambda state: state,
    "DataParallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "nested": lambda state: {"epoch": 3, "model_state_dict": state, "optimizer": {"state": {}}},
    "model": lambda state: {"model": state},
    "Lightning": lambda state: {**LIGHTNING, "state_dict": {f"model.{k}": v for k, v in state.items()}},
    "compiled": lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_wrapping_of_a_state_dict_is_read(form: str, state: State, tmp_path: Path) -> None:
    said: list[str] = []
    checkpoint = open_foreign(saved(FORMS[form](state), tmp_path / "w.pth"), UNET, said.append)
    assert equal(checkpoint.load(), state)
    assert not checkpoint.load().training
    assert checkpoint.sha256 == sha256_of(tmp_path / "w.pth")
    assert any("prefix" in line for line in said) == (form in ("DataParallel", "Lightning", "compiled"))
    assert any("entry" in line for line in said) == (form in ("nested", "model", "Lightning"))
    assert any("taken as built with smp's defaults" in line for line in said)


def test_safetensors_are_read(state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "w.safetensors")
    assert equal(open_foreign(tmp_path / "w.safetensors", UNET).load(), state)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda s: {k[8:]: v for k, v in s.items() if k.startswith("encoder.")}, "it is an encoder only"),
        (lambda s: {k: v for k, v in s.items() if k.startswith("encoder.")}, "it is an encoder only"),
        (lambda s: {"epoch": 3, "losses": [1.0]}, r"no state dict \(epoch, losses\)"),
        (lambda s: [1, 2], "no state dict"),
        (lambda s: torch.ones(3), "no decoder and segmentation head"),
        (lambda s: {**s, "decoder.extra": torch.ones(1)}, "unexpected 1: decoder.extra"),
        (
            lambda s: {k: v for k, v in s.items() if k != "encoder.bn1.weight"},
            r"unet on resnet18 do not fit: missing 1: encoder\.bn1\.weight",
        ),
        (
            lambda s: {**s, "encoder.bn1.weight": s["encoder.bn1.weight"] * float("nan")},
            r"encoder\.bn1\.weight is not finite",
        ),
        (
            lambda s: {**s, "encoder.conv1.weight": torch.ones(64, 4, 7, 7)},
            r"encoder\.conv1\.weight takes 4 channels, expected 1 \(gray\) or 3",
        ),
        (lambda s: {k: v for k, v in s.items() if k != "segmentation_head.0.weight"}, "missing 1: segm"),
    ],
)
def test_what_is_no_whole_network_is_refused(
    content: Callable[[State], object], message: str, state: State, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        open_foreign(saved(content(state), tmp_path / "w.pth"), UNET)


@pytest.mark.fault
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_truncated_checkpoint_is_refused(name: str, state: State, tmp_path: Path) -> None:
    path = tmp_path / name
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="cannot be read as weights"):
        open_foreign(path, UNET)


def test_pickle_of_a_whole_module_runs_no_code(unet: torch.nn.Module, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"objects of segmentation_models_pytorch\..*Unet.*model\.state_dict\(\)"
    ):
        open_foreign(saved(unet, tmp_path / "w.pth"), UNET)


@pytest.mark.slow
def test_wrong_architecture_and_encoder_are_refused(state: State, tmp_path: Path) -> None:
    path = saved(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match="its decoder is a unet's, expected a deeplabv3's"):
        open_foreign(path, options(architecture="deeplabv3"))
    with pytest.raises(InputError, match=r"for unet on resnet34 do not fit: missing \d+: encoder\.layer1\.2"):
        open_foreign(path, options(encoder="resnet34"))
    with pytest.raises(InputError, match="architecture is 'vitseg', expected one of unetplusplus"):
        open_foreign(path, options(architecture="vitseg"))
    with pytest.raises(InputError, match="encoder 'tu-nothing'"):
        open_foreign(path, options(encoder="tu-nothing"))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["unetplusplus", "unet", "deeplabv3"])
def test_missing_flags_are_named_and_nothing_is_guessed(architecture: str, tmp_path: Path) -> None:
    network = build_model(architecture, "resnet34", channels=1, classes=2)
    path = saved(network.state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=f"keys of --arch {architecture}: give --arch and --encoder"):
        open_foreign(path, options(architecture=None, encoder=None))
    with pytest.raises(InputError, match="does not say what network it is: give --encoder "):
        open_foreign(path, options(architecture=architecture, encoder=None))


def gray_state() -> State:
    return build_model("unet", "resnet18", channels=1, classes=2).state_dict()


def test_channels_and_classes_come_from_the_weights(tmp_path: Path) -> None:
    path = saved(gray_state(), tmp_path / "w.pth")
    flags = options(
        classes=("core", "edema"), rule="sigmoid", mean=(0.5,), std=(0.25,), size=(64, 96), threshold=0.4
    )
    checkpoint = open_foreign(path, flags)
    assert checkpoint.contract == Contract(64, 96, (0.5,), (0.25,), classes=("core", "edema"), threshold=0.4)
    assert checkpoint.load()(torch.zeros(1, 1, 64, 96)).shape == (1, 2, 64, 96)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "has 2 classes, got names: none; give 2 by --classes"),
        ({"classes": ("a", "b", "c")}, "has 2 classes, got names: a, b, c; give 2"),
        ({"classes": ("a", "b")}, "does not say how they become masks: give --rule sigmoid if"),
        (
            {"classes": ("a", "b"), "rule": "sigmoid"},
            "takes 1 channel, .*give --mean and --std of its training",
        ),
        ({"classes": ("a", "b"), "rule": "sigmoid", "mean": (0.5,)}, "got one of --mean and --std"),
        (
            {"classes": ("a", "b"), "rule": "sigmoid", "mean": IMAGENET_MEAN, "std": IMAGENET_STD},
            r"--mean has 3 number\(s\)",
        ),
        (
            {"classes": ("a", "b"), "rule": "sigmoid", "mean": (0.5,), "std": (0.5,), "size": (250, 256)},
            "multiple of 32: use 224",
        ),
        (
            {"classes": ("a", "b"), "rule": "sigmoid", "mean": (0.5,), "std": (0.5,), "threshold": 1.0},
            "threshold is 1.0",
        ),
        ({"images": None}, "give --images FOLDER .* or --images phantoms"),
        ({"images": "/nowhere"}, "/nowhere: is not a folder"),
    ],
)
def test_what_is_missing_or_contradicts_the_file_is_refused(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = saved(gray_state(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=message):
        open_foreign(path, options(**changes))


def test_defaults_are_said(state: State, tmp_path: Path) -> None:
    said: list[str] = []
    path = saved(state, tmp_path / "w.pth")
    checkpoint = open_foreign(path, CheckpointOptions("unet", "resnet18", images="phantoms"), said.append)
    assert checkpoint.contract == Contract(512, 512, IMAGENET_MEAN, IMAGENET_STD, threshold=0.5)
    for expected in ("no --size: the input has 512x512", "no --threshold: ", "no --mean and --std: those of"):
        assert sum(line.startswith(expected) for line in said) == 1


def test_normalisation_is_the_encoders_own_or_asked_for(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(state, tmp_path / "w.pth")

    def unknown(*_: object) -> None:
        raise InputError("not known offline")

    monkeypatch.setattr(normalisation, "encoder_normalisation", unknown)
    with pytest.raises(
        InputError, match=r"normalisation of encoder 'resnet18' is not known here: give --mean"
    ):
        open_foreign(path, UNET)
    assert open_foreign(path, options(mean=(0.0,) * 3, std=(1.0,) * 3)).contract.std == (1.0,) * 3


@pytest.mark.slow
def test_names_of_earlier_versions_of_smp(tmp_path: Path) -> None:
    old = {"decoder.aspp.": "decoder.0.", "decoder.conv.": "decoder.1.", "decoder.bn.": "decoder.2."}

    def rename(key: str) -> str:
        return next((then + key[len(now) :] for now, then in old.items() if key.startswith(now)), key)

    present = build_model("deeplabv3", "resnet18", channels=3, classes=1).state_dict()
    path = saved({rename(key): value for key, value in present.items()}, tmp_path / "w.pth")
    assert equal(open_foreign(path, options(architecture="deeplabv3")).load(), present)
    regnet = build_model("unet", "timm-regnetx_002", channels=3, classes=1).state_dict()
    path = saved(
        {key.replace("encoder.model.", "encoder."): v for key, v in regnet.items()}, tmp_path / "r.pth"
    )
    flags = options(encoder="timm-regnetx_002", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert equal(open_foreign(path, flags).load(), regnet)


def test_timm_encoder_gives_no_warning(tmp_path: Path) -> None:
    encoder = "timm-tf_efficientnet_lite0"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = build_model("unetplusplus", encoder, channels=3, classes=1)
        path = saved(network.state_dict(), tmp_path / "w.pth")
        checkpoint = open_foreign(path, options(architecture="unetplusplus", encoder=encoder))
    assert checkpoint.contract.mean == (0.5, 0.5, 0.5)


@pytest.mark.slow
def test_run_and_folders_of_neither_kind(tiny_run: Run, tmp_path: Path) -> None:
    own = open_checkpoint(tiny_run.root, CheckpointOptions())
    assert own.sha256 == tiny_run.checkpoint_sha256
    assert own.golden_from == "images of the run's split"
    with pytest.raises(InputError, match="is a run, which says itself what it is; got --arch: leave"):
        open_checkpoint(tiny_run.root, CheckpointOptions(architecture="unet", images="phantoms"))
    drawn = open_checkpoint(tiny_run.root, CheckpointOptions(images="phantoms"))
    assert drawn.golden_from == "phantoms, drawn for this export"
    with drawn.images() as manifest:
        assert {item.organ for item in manifest.items} == {"brain", "breast"}
        assert manifest.root != tiny_run.manifest().root
    assert drawn.training == own.training
    with pytest.raises(BundleError, match=r"has no run\.json and no config\.json"):
        open_checkpoint(tmp_path, UNET)
    with pytest.raises(InputError, match="does not exist, expected a run"):
        open_checkpoint(tmp_path / "absent.pth", UNET)


@pytest.mark.slow
def test_foreign_checkpoint_becomes_a_bundle_like_any_other(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    random = np.random.default_rng(4)
    for n in range(5):
        shape = (70, 90, 3) if n == 2 else (70, 90)
        write_png(images / f"{n}.png", random.integers(0, 256, shape, dtype=np.uint8))
    path = saved(gray_state(), tmp_path / "secret-name.pth")
    flags = options(classes=("core", "edema"), rule="sigmoid", mean=(0.5,), std=(0.25,), images=str(images))
    said: list[str] = []

    def make(name: str) -> Bundle:
        checkpoint = open_checkpoint(path, flags, said.append)
        return export_checkpoint(checkpoint, tmp_path / name, targets=["onnx"], golden=3, log=said.append)

    bundle = make("bundle")
    assert "1 colour images are left out: the network takes gray" in said
    assert bundle.name == f"unet-resnet18-64x64-{sha256_of(path)[:8]}"
    assert bundle.golden == ("01-image", "02-image", "03-image")
    assert bundle.training["training"] == {"note": "foreign checkpoint, nothing is known of its training"}
    assert bundle.training["phantoms"] is None
    assert bundle.provenance["checkpoint_sha256"] == sha256_of(path)
    assert bundle.provenance["golden_images"] == "images of a folder, tumours unknown"
    card = (bundle.root / "MODEL_CARD.md").read_text()
    assert "nothing is known of its training" in card
    assert "None are known" in card
    for file in bundle.root.rglob("*.[jm][sd]*"):
        assert "secret-name" not in file.read_text()
        assert str(tmp_path) not in file.read_text()
    segmenter = Segmenter.open(bundle.root, self_test=True)
    assert segmenter.predict(images / "0.png").masks.shape == (2, 70, 90)
    assert make("again").digest() == bundle.digest()
