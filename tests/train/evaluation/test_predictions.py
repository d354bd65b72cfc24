"""Judging with networks that are known exactly: no torch."""

import dataclasses
import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tumorseg_runtime.core.contract import Contract
from tumorseg_runtime.core.errors import InputError, OutputError
from tumorseg_train.data.datasets import read_pair
from tumorseg_train.data.split import Manifest
from tumorseg_train.evaluation.predictions import ORIGINAL, score_part
from tumorseg_train.networks.run import Run

CONTRACT = Contract(height=64, width=64)


@pytest.fixture
def manifest(tiny_run: Run) -> Manifest:
    return tiny_run.manifest()


def nothing(image: np.ndarray, name: str) -> np.ndarray:
    return np.full((1, 64, 64), -5, np.float32)


def left_half(image: np.ndarray, name: str) -> np.ndarray:
    logits = nothing(image, name)
    logits[:, :, :32] = 5
    return logits


def test_masks_are_compared_at_the_networks_size(manifest: Manifest) -> None:
    seen: list[float] = []
    predictions = score_part(left_half, manifest, "test", CONTRACT, tell=seen.append)
    assert seen == [0.2, 0.4, 0.6, 0.8, 1.0]
    for item, score in zip(predictions.items, predictions.scores, strict=True):
        _, mask = read_pair(manifest.root, item)
        truth = cv2.resize(mask.astype(np.uint8), (64, 64), interpolation=cv2.INTER_NEAREST_EXACT) > 0
        assert score.pixels == 64 * 64
        assert score.truth_px == truth.sum()
        assert score.predicted_px == 64 * 32
        assert score.both_px == truth[:, :32].sum()
    assert sum(score.truth_px > 0 for score in predictions.scores) == len(predictions.near) == 3


def test_or_at_the_images_own_size(manifest: Manifest) -> None:
    predictions = score_part(left_half, manifest, "test", CONTRACT, scale=ORIGINAL)
    for item, score in zip(predictions.items, predictions.scores, strict=True):
        assert score.pixels == item.height * item.width
        assert score.truth_px == item.tumour_px
        assert score.predicted_px == pytest.approx(item.height * item.width / 2, rel=0.05)


def test_the_spacing_of_an_organ_that_is_not_there_is_refused(manifest: Manifest) -> None:
    with pytest.raises(InputError, match="spacing is given for brian, expected organs of the split: brain"):
        score_part(nothing, manifest, "test", CONTRACT, spacing={"brian": 0.5})


def test_or_at_a_square_of_any_size(manifest: Manifest) -> None:
    predictions = score_part(left_half, manifest, "test", CONTRACT, scale="160")
    for item, score in zip(predictions.items, predictions.scores, strict=True):
        _, mask = read_pair(manifest.root, item)
        truth = cv2.resize(mask.astype(np.uint8), (160, 160), interpolation=cv2.INTER_NEAREST_EXACT) > 0
        assert (score.pixels, score.truth_px) == (160 * 160, truth.sum())
        assert score.predicted_px == 160 * 80


@pytest.mark.parametrize("scale", ["", "0", "-512", "512x512", "9000", "²", "own"])
def test_a_scale_that_is_none_is_refused(manifest: Manifest, scale: str) -> None:
    with pytest.raises(InputError, match="expected contract, original, or 1 to 8192 pixels"):
        score_part(left_half, manifest, "test", CONTRACT, scale=scale)


def test_the_threshold_is_the_contracts(manifest: Manifest) -> None:
    def doubtful(image: np.ndarray, name: str) -> np.ndarray:
        return np.full((1, 64, 64), math.log(0.7 / 0.3), np.float32)

    for threshold, marked in ((0.69, 64 * 64), (0.71, 0)):
        contract = dataclasses.replace(CONTRACT, threshold=threshold)
        predictions = score_part(doubtful, manifest, "test", contract)
        assert {score.predicted_px for score in predictions.scores} == {marked}
    found = predictions.calibration(draws=50)["all"]
    assert [point["predicted"] for point in found["points"]] == [pytest.approx(0.7, abs=1e-6)]


def test_any_class_counts(manifest: Manifest) -> None:
    def two(image: np.ndarray, name: str) -> np.ndarray:
        return np.concatenate([nothing(image, name), left_half(image, name)])

    contract = dataclasses.replace(CONTRACT, classes=("one", "two"))
    assert {score.predicted_px for score in score_part(two, manifest, "test", contract).scores} == {64 * 32}


def test_millimetres_follow_the_resizing(manifest: Manifest) -> None:
    predictions = score_part(left_half, manifest, "test", CONTRACT, spacing={"brain": 0.5})
    at_own_size = score_part(left_half, manifest, "test", CONTRACT, spacing={"brain": 0.5}, scale=ORIGINAL)
    compared = 0
    for item, score, own in zip(predictions.items, predictions.scores, at_own_size.scores, strict=True):
        if item.organ == "breast":
            assert math.isnan(score.hd95_mm)
        elif score.truth_px:
            assert own.hd95_mm == pytest.approx(own.hd95_px * 0.5)
            assert score.hd95_mm == pytest.approx(own.hd95_mm, abs=1.5)  # a pixel or so
            compared += 1
    assert compared == 2


def test_strata_hold_every_image_once(manifest: Manifest) -> None:
    strata = score_part(left_half, manifest, "test", CONTRACT).strata(draws=50)
    assert {kind: sum(each.images for each in found) for kind, found in strata.items()} == dict.fromkeys(
        ("all", "organ", "class", "size"), 5
    )
    assert [each.name for each in strata["organ"]] == ["brain", "breast"]
    assert [each.name for each in strata["class"]] == ["brain, tumour", "breast, benign", "breast, normal"]
    assert strata["all"][0].groups == 5  # a split without groups: each image is one


def test_groups_come_from_the_split(manifest: Manifest) -> None:
    items = tuple(dataclasses.replace(item, group="patient-1") for item in manifest.items)
    grouped = score_part(left_half, dataclasses.replace(manifest, items=items), "test", CONTRACT)
    all_images = grouped.strata(draws=50)["all"][0]
    assert all_images.groups == 1
    assert math.isnan(all_images.figures["mean_dice"].low)  # one patient tells nothing about others


def test_other_files_than_the_splits_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    shutil.copytree(manifest.root, tmp_path / "data")
    moved = dataclasses.replace(manifest, root=tmp_path / "data")
    item = moved.part("test")[0]
    mask = tmp_path / "data" / item.masks[0]
    original = mask.read_bytes()
    mask.write_bytes((tmp_path / "data" / moved.part("test")[1].masks[0]).read_bytes())
    with pytest.raises(InputError, match="differs from the file of the split, expected the very data"):
        score_part(nothing, moved, "test", CONTRACT)
    mask.unlink()
    with pytest.raises(InputError, match="is missing, expected the very data"):
        score_part(nothing, moved, "test", CONTRACT)
    mask.write_bytes(original)
    assert len(score_part(nothing, moved, "test", CONTRACT).scores) == 5


def test_broken_networks_and_empty_parts_are_refused(manifest: Manifest) -> None:
    with pytest.raises(OutputError, match="logits are not finite"):
        score_part(lambda image, name: nothing(image, name) * np.nan, manifest, "test", CONTRACT)
    only_training = tuple(item for item in manifest.items if item.part == "train")
    with pytest.raises(InputError, match="no image in 'test'"):
        score_part(nothing, dataclasses.replace(manifest, items=only_training), "test", CONTRACT)


def test_a_tumour_lost_in_resizing_is_named(manifest: Manifest) -> None:
    assert score_part(nothing, manifest, "test", CONTRACT).vanished == ()
    items = tuple(
        dataclasses.replace(item, masks=(), tumour_px=1) if item.tumour_px else item
        for item in manifest.items
    )
    # The split speaks of a pixel of tumour that the masks, once resized, no longer show.
    lost = score_part(nothing, dataclasses.replace(manifest, items=items), "test", CONTRACT)
    assert len(lost.vanished) == 3
