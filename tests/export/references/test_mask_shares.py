"""A network whose masks cannot be right is exported with a warning and a contact sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tumorseg_export.bundle.export import export_checkpoint
from tumorseg_export.checkpoint.foreign import CheckpointOptions, open_foreign
from tumorseg_export.commands.export import summarise
from tumorseg_export.references.mask_shares import SHEET, contact_sheet, implausible, shares_of
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.images.read import read_image
from tumorseg_runtime.parity.reference import Golden
from tumorseg_runtime.processing.overlay import COLOURS
from tumorseg_train.networks.models import build_model

CONTRACT = Contract(height=64, width=64, classes=("a", "b"), threshold=None, rule="softmax")


def golden(name: str, *shape: int) -> Golden:
    logits = np.full((2, 64, 64), -1, np.float32)
    logits[0, :16], logits[1, 16:32] = 1, 1
    pixels = np.full(shape, 90, np.uint8)
    return Golden(name, pixels, np.zeros((3, 64, 64), np.float32), logits)


def test_a_share_counts_pixels_of_any_class_at_the_images_own_size() -> None:
    assert shares_of([golden("a", 128, 64), golden("b", 64, 96, 3)], CONTRACT) == [0.5, 0.5]


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([0.02, 0.0, 0.9], None),
        ([0.0, 0.0, 0.001], None),
        ([0.0, 0.0, 0.0], "PyTorch's own masks are empty on all 3 images"),
        ([0.65, 0.6, 0.7], "PyTorch's own masks cover 65% of the pixels of 3 images on average"),
    ],
)
def test_what_is_implausible(shares: list[float], message: str | None) -> None:
    found = implausible(shares)
    assert found == message if message is None or found is None else found.startswith(message)


def test_a_contact_sheet_shows_each_image_beside_its_masks() -> None:
    sheet = contact_sheet([golden("first", 100, 80), golden("second", 30, 60, 3)], CONTRACT)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1:] == (664, 3)
    tinted = (sheet[:, 336:] != sheet[:, 336:, :1]).any(axis=2)
    assert not (sheet[:, :328] != sheet[:, :328, :1]).any()  # to the left the gray image itself
    assert 0.15 < tinted.mean() < 0.5
    colours = {tuple(colour) for colour in sheet.reshape(-1, 3).tolist()}
    assert {COLOURS[0], COLOURS[1]} <= colours  # borders of both classes


def exported(bias: float, folder: Path) -> tuple[Bundle, list[str]]:
    """An export of random weights whose logits are shifted."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = build_model("unet", "resnet18", channels=3, classes=1).state_dict()
    state["segmentation_head.0.bias"] += bias
    torch.save(state, folder / "w.pth")
    flags = CheckpointOptions(architecture="unet", encoder="resnet18", images="phantoms", size=(64, 64))
    said: list[str] = []
    checkpoint = open_foreign(folder / "w.pth", flags)
    bundle = export_checkpoint(checkpoint, folder / "b", targets=["onnx"], golden=3, log=said.append)
    return bundle, said


@pytest.mark.slow
def test_the_export_says_it_and_seals_the_sheet(tmp_path: Path) -> None:
    bundle, said = exported(9.0, tmp_path)
    message = "cover 100% of the pixels"
    assert message in bundle.model["warning"]
    assert any(line.startswith("warning: ") and message in line and SHEET in line for line in said)
    assert f"- {bundle.model['warning']}: `{SHEET}`" in (bundle.root / "MODEL_CARD.md").read_text()
    assert summarise(bundle, 1.0)["warning"] == bundle.model["warning"]
    assert SHEET in bundle.files
    assert read_image(bundle.root / SHEET).shape[1:] == (664, 3)
