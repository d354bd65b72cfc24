"""What a person sees of the door: short texts, a door that closes, files that are saved, the version."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import cv2
import numpy as np
import pytest

import tumorseg_runtime
from tumorseg_runtime import BackendError, InputError, Segmenter


def test_a_segmenter_closes_and_says_what_it_is(small_bundle: Path) -> None:
    with Segmenter.open(small_bundle) as segmenter:
        assert repr(segmenter).startswith("<Segmenter onnxruntime cpu fp32, ")
        assert len(repr(segmenter)) < 100
        segmenter.predict(np.zeros((30, 40), np.uint8))
    with pytest.raises(BackendError, match="onnxruntime on cpu is closed, expected it open"):
        segmenter.predict(np.zeros((30, 40), np.uint8))
    segmenter.close()


def test_a_prediction_is_short_and_saves_its_mask_and_its_picture(small_bundle: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40), np.uint8)
    with Segmenter.open(small_bundle) as segmenter:
        prediction = segmenter.predict(pixels)
    assert repr(prediction) == f"<Prediction image 0, 40x30, {len(prediction.lesions)} lesions>"
    prediction.save(tmp_path / "mask.png", overlay=tmp_path / "overlay.png")
    mask = cv2.imread(str(tmp_path / "mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    assert np.array_equal(mask, prediction.mask * np.uint8(255))
    overlay = cv2.imread(str(tmp_path / "overlay.png"))
    assert overlay is not None
    assert overlay.shape == (30, 40, 3)
    prediction.save(tmp_path / "alone.png")
    with pytest.raises(InputError, match="cannot be written"):
        prediction.save(tmp_path / "none" / "mask.png")


def test_the_version_is_the_distributions() -> None:
    assert tumorseg_runtime.__version__ == importlib.metadata.version("tumorseg")
